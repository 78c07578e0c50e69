"""Which file systems may keep the leader lock: samples of /proc/self/mountinfo."""

import pytest

from stargate_gate.datadir.filesystem import Mount, mount_of
from stargate_gate.election.flock.mounts import no_volume, objection, shared_data_dir

MOUNTINFO = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 22 0:26 / /proc rw,nosuid shared:12 - proc proc rw
40 22 0:41 / /mnt/shared rw,relatime shared:20 - nfs4 filer:/export rw,vers=4.2,hard,local_lock=none
41 22 0:42 / /mnt/old rw,relatime - nfs filer:/old rw,vers=3,local_lock=none
42 22 0:43 / /mnt/with\040space rw - nfs4 filer:/s rw,vers=4.0
43 22 0:44 / /mnt/shared-too rw - cifs //filer/x rw,vers=3.1.1
44 22 0:45 / /mnt/bind rw master:3 propagate_from:2 - ext4 /dev/vdb rw
a line that is none
"""


@pytest.mark.parametrize(
    ("path", "point", "kind"),
    [
        ("/mnt/shared/stargate/leader.lock", "/mnt/shared", "nfs4"),
        ("/mnt/shared", "/mnt/shared", "nfs4"),
        ("/mnt/shared-too/leader.lock", "/mnt/shared-too", "cifs"),
        ("/mnt/sharedish/leader.lock", "/", "ext4"),
        ("/mnt/with space/leader.lock", "/mnt/with space", "nfs4"),
        ("/mnt/bind/leader.lock", "/mnt/bind", "ext4"),
        ("/var/lib/leader.lock", "/", "ext4"),
    ],
)
def test_the_mount_of_a_path_is_the_deepest_one_above_it(path: str, point: str, kind: str):
    """By path components, with the kernel's escapes and its optional fields understood."""
    mount = mount_of(path, MOUNTINFO)
    assert mount is not None
    assert (mount.point, mount.type) == (point, kind)


def test_of_two_mounts_on_one_point_the_later_is_seen():
    """A mount hides the one below it."""
    mount = mount_of("/mnt/shared/x", MOUNTINFO + "50 40 0:50 / /mnt/shared rw - tmpfs tmpfs rw\n")
    assert mount is not None
    assert mount.type == "tmpfs"


def test_nothing_is_said_where_nothing_is_known():
    """No line matches: no mount, rather than a guess."""
    assert mount_of("/mnt/shared/x", "") is None


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("ext4", "rw", None),
        ("ceph", "rw", None),
        ("gfs2", "rw", None),
        ("gfs2", "rw,localflocks", "localflocks"),
        ("ocfs2", "rw,localflocks", "localflocks"),
        ("lustre", "rw,localflock", "localflock"),
        ("nfs4", "rw,vers=4.1", None),
        ("nfs4", "rw,vers=4.2,local_lock=none", None),
        ("nfs4", "rw,vers=4.2,local_lock=posix", None),
        ("nfs4", "rw,vers=4.2,local_lock=flock", "local_lock=flock"),
        ("nfs4", "rw,vers=4.2,local_lock=all", "local_lock=all"),
        ("nfs4", "rw,vers=4.0", "NFS 4.0"),
        ("nfs4", "rw", "NFS 4,"),
        ("nfs", "rw,vers=3", "NFS 3"),
        ("nfs", "rw", "NFS 3"),
        ("nfs", "rw,vers=4.1", None),
        ("cifs", "rw", "SMB"),
        ("smb3", "rw", "SMB"),
        ("fuse.sshfs", "rw", "sshfs"),
    ],
)
def test_a_file_system_that_loses_locks_is_refused_by_name(kind: str, options: str, words: str | None):
    """NFSv4.1 and later without local locks, and what is not known to be bad, may keep the lock."""
    reason = objection(Mount("/mnt/shared", kind, frozenset(options.split(","))))
    if words is None:
        assert reason is None
    else:
        assert reason is not None
        assert words in reason
        assert "/mnt/shared" in reason


@pytest.mark.parametrize(
    ("data_dir", "lock_folder", "words"),
    [
        ("/mnt/shared/stargate/data", "/mnt/shared/stargate", "is below /mnt/shared/stargate"),
        ("/mnt/shared/data", "/mnt/shared/stargate", "is on /mnt/shared (nfs4), as the leader lock is"),
        ("/srv/stargate/data", "/srv/stargate", "is below /srv/stargate"),
        ("/srv/stargate-data", "/srv/stargate", None),
        ("/var/lib/stargate", "/mnt/shared/stargate", None),
        ("/mnt/shared-too/data", "/mnt/shared/stargate", None),
        ("/var/lib/stargate", "/srv/shared", None),  # one machine, one disk: a demo
    ],
)
def test_a_data_dir_is_not_on_the_volume_that_all_nodes_share(
    data_dir: str, lock_folder: str, words: str | None
) -> None:
    """Each node needs a copy of its own; the lock's volume is one for all."""
    problem = shared_data_dir(data_dir, lock_folder, MOUNTINFO)
    assert problem is None if words is None else words in (problem or "")


@pytest.mark.parametrize(
    ("lock_folder", "data_dir", "on"),
    [
        ("/mnt/shared/stargate", "/var/lib/stargate", None),
        ("/mnt/not-mounted", "/var/lib/stargate", "/ (ext4)"),
        ("/mnt/bind/shared", "/mnt/bind/data", "/mnt/bind (ext4)"),
        ("/mnt/bind/shared", "/var/lib/stargate", None),
    ],
)
def test_a_volume_that_is_not_mounted_is_told_from_one_that_is(
    lock_folder: str, data_dir: str, on: str | None
) -> None:
    """Its folder is then on the root file system, or on that of the data_dir."""
    problem = no_volume(lock_folder, data_dir, MOUNTINFO)
    assert problem is None if on is None else f"it is on {on}, this machine's own disk" in (problem or "")
    assert no_volume(lock_folder, data_dir, None) is None, "nothing is said where nothing is known"
