"""Which file systems can be trusted with the leader lock, and which with a data_dir. Pure.

flock(2) on NFSv3 and SMB may exist on one machine only, or be lost without a signal. See nfs(5) for
`vers` and `local_lock`.
"""

from pathlib import PurePosixPath

from stargate_gate.datadir.filesystem import Mount, mount_of

OLDEST_NFS = (4, 1)  # sessions: a lost lock shows as EIO
NEVER = {
    "cifs": "SMB does not keep locks between machines reliably",
    "smb3": "SMB does not keep locks between machines reliably",
    "smbfs": "SMB does not keep locks between machines reliably",
    "fuse.sshfs": "sshfs keeps locks on one machine only",
}
_CLUSTERED = ["ceph", "lustre", "gfs2", "ocfs2", "gpfs", "beegfs", "orangefs", "afs", "glusterfs"]
_FUSE = ["fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.juicefs", "fuse.s3fs", "fuse.rclone"]
NETWORK = frozenset({"nfs", "nfs4", *NEVER, *_CLUSTERED, *_FUSE})  # what several machines may mount
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


def shared_data_dir(data_dir: str, lock_folder: str, mountinfo: str | None) -> str | None:
    """Why `data_dir` is on the volume that all nodes share, if it is. Absolute paths, without symlinks."""
    if PurePosixPath(data_dir).is_relative_to(lock_folder):
        return (
            f"{data_dir} is below {lock_folder}, where the leader lock is, on the volume that all nodes "
            f"share: name a folder on this machine's own disk"
        )
    mount, own = _mounts_of(lock_folder, data_dir, mountinfo)
    if mount is None or own != mount or mount.type not in NETWORK:
        return None
    return (
        f"{data_dir} is on {mount.point} ({mount.type}), as the leader lock is: each node needs a copy on "
        f"its own disk; name a folder there"
    )


def no_volume(lock_folder: str, data_dir: str, mountinfo: str | None) -> str | None:
    """Why nothing that other machines see is mounted at `lock_folder`, if so.

    A volume that is not mounted leaves an empty folder on the root file system, or on that of the data_dir.
    """
    mount, own = _mounts_of(lock_folder, data_dir, mountinfo)
    if mount is None or (mount.point != "/" and mount != own):
        return None
    return (
        f"nothing is mounted at {lock_folder}: it is on {mount.point} ({mount.type}), this machine's own disk"
    )


def _mounts_of(one: str, other: str, mountinfo: str | None) -> tuple[Mount | None, Mount | None]:
    if mountinfo is None:
        return None, None
    return mount_of(one, mountinfo), mount_of(other, mountinfo)


def _version(text: str) -> tuple[int, ...]:
    numbers = [int(number) for number in text.split(".") if number.isdecimal()]
    return tuple([*numbers, 0, 0][:2])
