"""The values of a few refs, read from a repository: git's files backend, gitrepository-layout(5).

In a thread it takes about a millisecond, also where starting a process could take too long.
"""

import re
from collections.abc import Collection
from pathlib import Path

_OID = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")
MAX_REF_BYTES = 1024  # a loose ref's file; anything longer is none
MAX_PACKED_BYTES = 64 * 1024 * 1024  # some 800,000 refs


class UncertainError(Exception):
    """Only git can tell."""


def read_values(repository: Path, refs: Collection[bytes]) -> dict[bytes, bytes | None]:
    """The value of each ref, in hex; None for one that is not there. Blocks; for a thread.

    The loose file is read first and counts before packed-refs, as in git: a ref that is packed meanwhile is
    written to packed-refs before its file is removed.

    Raises:
        UncertainError: symbolic refs, another backend, a ref that is half written, a name that is none.
        OSError
    """
    if (repository / "reftable").exists():
        raise UncertainError
    found: dict[bytes, bytes | None] = {}
    missing: set[bytes] = set()
    for ref in refs:
        value = _loose(repository, ref)
        if value is None:
            missing.add(ref)
        found[ref] = value
    return {**found, **_packed(repository, missing)} if missing else found


def _loose(repository: Path, ref: bytes) -> bytes | None:
    name = ref.decode("utf-8", "surrogateescape")
    if not name.startswith("refs/") or "\0" in name or ".." in name.split("/"):
        raise UncertainError
    try:
        with (repository / name).open("rb") as file:
            line = file.read(MAX_REF_BYTES).rstrip(b"\n")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    if not _OID.fullmatch(line):
        raise UncertainError
    return line


def _packed(repository: Path, refs: Collection[bytes]) -> dict[bytes, bytes]:
    try:
        with (repository / "packed-refs").open("rb") as file:
            content = file.read(MAX_PACKED_BYTES + 1)
    except FileNotFoundError:
        return {}
    if len(content) > MAX_PACKED_BYTES:
        raise UncertainError
    lines = (line.split(b" ", 1) for line in content.split(b"\n") if line[:1] not in {b"#", b"^", b""})
    return {name: oid for oid, name in lines if name in refs}
