"""syncfs(2) where it reaches everything, and nowhere else."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stargate_gate.datadir import filesystem
from stargate_gate.datadir.filesystem import Mount, mounts_below, sync_file_system

MOUNTINFO = r"""
22 1 254:0 / / rw - ext4 /dev/vda1 rw
40 22 0:41 / /srv/data rw - xfs /dev/vdb rw
41 40 0:42 / /srv/data/big\040ones rw - xfs /dev/vdc rw
42 22 0:43 / /srv/database rw - xfs /dev/vdd rw
43 22 0:44 / /home/x rw - fuse.gocryptfs x rw
"""


def test_what_is_mounted_below_a_folder() -> None:
    """By path components; the folder's own mount is not below it."""
    below = Mount("/srv/data/big ones", "xfs", frozenset({"rw"}))
    assert mounts_below("/srv/data", MOUNTINFO) == [below]
    assert mounts_below("/srv/data/big ones", MOUNTINFO) == []
    assert len(mounts_below("/srv", MOUNTINFO)) == 3


@pytest.mark.parametrize(
    ("top", "mountinfo", "done"),
    [
        ("/srv/data/small", MOUNTINFO, True),
        ("/srv/data", MOUNTINFO, False),
        ("/home/x/data", MOUNTINFO, False),
        ("/srv/data/small", None, False),
        ("/srv/data/small", "", False),
    ],
)
def test_it_is_trusted_only_where_it_reaches_everything(
    top: str,
    mountinfo: str | None,
    done: bool,  # noqa: FBT001 - a parameter of the test
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not where another file system is mounted below, not on FUSE, not where nothing can be told."""
    monkeypatch.setattr(filesystem, "read_mountinfo", lambda: mountinfo)
    monkeypatch.setattr(os.path, "realpath", lambda _: top)
    assert sync_file_system(tmp_path) is done


def test_a_libc_without_it_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the caller has to go through the folders."""
    monkeypatch.setattr(filesystem, "_syncfs", lambda: None)
    assert not sync_file_system(tmp_path)


def test_the_real_call_is_made_and_its_error_is_told(tmp_path: Path) -> None:
    """Seen from outside by strace(1), which also makes the call fail."""
    strace = shutil.which("strace")
    assert strace is not None, ".ci/system-packages installs it"
    program = (
        "import sys; from pathlib import Path; from stargate_gate.datadir.filesystem import sync_file_system;"
        "print(sync_file_system(Path(sys.argv[1])))"
    )

    for inject, status, words in (
        ((), 0, "True"),
        (("-e", "inject=syncfs:error=EIO"), 1, os.strerror(errno.EIO)),
    ):
        log = tmp_path / "log"
        traced = (strace, "-f", "-y", "-o", str(log), "-e", "trace=syncfs", *inject)
        argv = [*traced, sys.executable, "-c", program]
        done = subprocess.run([*argv, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == status
        assert words in done.stdout + done.stderr
        assert f"<{tmp_path}>)" in log.read_text()
