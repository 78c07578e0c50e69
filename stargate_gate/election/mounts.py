"""Which file systems can be trusted with the leader lock. Pure.

flock(2) on NFSv3 and SMB may exist on one machine only, or be lost without a signal. See nfs(5) for
`vers` and `local_lock`.
"""

from stargate_gate.datadir.mounts import Mount

OLDEST_NFS = (4, 1)  # sessions: a lost lock shows as EIO
NEVER = {
    "cifs": "SMB does not keep locks between machines reliably",
    "smb3": "SMB does not keep locks between machines reliably",
    "smbfs": "SMB does not keep locks between machines reliably",
    "fuse.sshfs": "sshfs keeps locks on one machine only",
}
LOCAL_FLOCKS = frozenset({"localflocks", "localflock"})  # GFS2 and OCFS2; Lustre


def objection(mount: Mount) -> str | None:
    """Why the leader lock must not be on this mount; None where nothing speaks against it."""
    if mount.type in NEVER:
        return f"{mount.point} is {mount.type}: {NEVER[mount.type]}; use NFSv4.1 or a cluster file system"
    if found := mount.options & LOCAL_FLOCKS:
        return f"{mount.point} is mounted with {min(found)}: locks stay on this machine; mount it without"
    if mount.type not in {"nfs", "nfs4"}:
        return None
    options = dict(option.partition("=")[::2] for option in mount.options)
    if (local := options.get("local_lock", "none")) not in {"none", "posix"}:
        return (
            f"{mount.point} is mounted with local_lock={local}: locks stay on this machine; mount it without"
        )
    version = options.get("vers", "4" if mount.type == "nfs4" else "3")
    if _version(version) < OLDEST_NFS:
        return (
            f"{mount.point} is NFS {version}, whose locks can be lost unseen: mount it with vers=4.1 or later"
        )
    return None


def _version(text: str) -> tuple[int, ...]:
    numbers = [int(number) for number in text.split(".") if number.isdecimal()]
    return tuple([*numbers, 0, 0][:2])
