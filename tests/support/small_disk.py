"""A disk that is soon full: a tmpfs of a few megabytes, mounted by the test and gone after it."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

MOUNT_LIMIT_S = 10.0


@contextlib.contextmanager
def small_disk(path: Path, *, megabytes: int) -> Iterator[Path]:
    """`path` is a file system of that size. Needs root, as CI has it."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    path.mkdir(parents=True, exist_ok=True)
    options = f"size={megabytes}m,mode=0700"
    _run("mount", "-t", "tmpfs", "-o", options, "stargate-test", str(path))
    try:
        yield path
    finally:
        _run("umount", "--lazy", str(path))


def fill(path: Path) -> Path:
    """Take all the space there is; remove the returned file to give it back."""
    ballast = path / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 65536)
    return ballast


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, timeout=MOUNT_LIMIT_S, capture_output=True)
