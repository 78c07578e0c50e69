"""Durable small files: after a crash or power loss they have the old or the new content, never a part."""

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stargate_gate.formats import Format

_LEVELS = 50  # that are moved up at a time; shutil.rmtree can remove this many


def fsync_dir(path: Path) -> None:
    """Put the names in the directory `path` on disk. Without it, a rename in it is not durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_durably(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Replace `path` by `content`: write beside it, fsync, rename, fsync the directory.

    Raises:
        OSError: the old content is still there, unchanged.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    fsync_dir(path.parent)


def remove_tree(path: Path) -> None:
    """Remove the folder `path` and everything in it, however deep.

    shutil.rmtree calls itself at each level, and fails if there are too many. So deep folders are moved up
    first.

    Raises:
        OSError: not all of it is gone.
    """
    while True:
        try:
            shutil.rmtree(path)
        except (RecursionError, OSError) as error:  # too many levels, or too many open folders
            if isinstance(error, OSError) and error.errno != errno.EMFILE:
                raise
            if not _move_up(path):
                raise OSError(errno.ELOOP, "its folders are too deep", str(path)) from error
        else:
            return


def _move_up(top: Path) -> bool:
    """Move the folders that are _LEVELS levels below `top` to `top`. Returns whether there are any."""
    level = [str(top)]
    for _ in range(_LEVELS):
        below: list[str] = []
        for folder in level:
            with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
                below += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        if not below:
            return False
        level = below
    for folder in level:
        os.rename(folder, top / f".deep-{secrets.token_hex(8)}")  # noqa: PTH104 - a plain string
    return True


def write_json_durably(path: Path, value: Mapping[str, Any], kind: Format) -> None:
    """`write_durably` of one JSON object, with the format number of `kind`."""
    write_durably(path, json.dumps(kind.stamped(value), indent=2, sort_keys=True).encode() + b"\n")


def read_json(path: Path, kind: Format) -> dict[str, Any] | None:
    """The JSON object in `path` without its format number, or None where there is no such file.

    Raises:
        OSError: it cannot be read.
        NewerFormatError: its format number is larger than that of `kind`.
        ValueError: it is not a JSON object.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    value = json.loads(content)
    if not isinstance(value, dict):
        raise ValueError(f"{path} does not hold a JSON object")  # noqa: TRY004 - the content is wrong, not a type
    return kind.unstamped(value, path)
