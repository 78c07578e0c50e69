"""Small files that hold the old or the new content after a crash or power loss, never half."""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def fsync_dir(path: Path) -> None:
    """Put the names in the directory `path` on disk: a rename is not durable without it."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_durably(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Replace `path` by `content`: write beside it, fsync, rename, fsync the directory.

    Raises:
        OSError: the old content is still there, whole.
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


def write_json_durably(path: Path, value: Mapping[str, Any]) -> None:
    """`write_durably` of one JSON object."""
    write_durably(path, json.dumps(value, indent=2, sort_keys=True).encode() + b"\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in `path`, or None where there is no such file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a JSON object.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    value = json.loads(content)
    if not isinstance(value, dict):
        raise ValueError(f"{path} does not hold a JSON object")  # noqa: TRY004 - the content is wrong, not a type
    return value
