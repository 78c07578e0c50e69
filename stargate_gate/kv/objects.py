"""Reads objects through one `git cat-file --batch`, with many requests at a time."""

import subprocess
from collections.abc import Collection, Iterable, Iterator
from types import TracebackType
from typing import IO, NamedTuple, Self

from stargate_gate.kv.errors import KvError
from stargate_gate.kv.git import END_LIMIT_S, argv, environment

# Sent before the answers are read: so many requests fit in a pipe (64 KiB).
REQUESTS_AT_ONCE = 500


class Object(NamedTuple):
    """An object of the repository."""

    oid: str
    kind: str
    content: bytes


class Reader:
    """A context manager. git is started for the first request. The contents of trees are cached."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._trees: dict[bytes, bytes] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(END_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(END_LIMIT_S)

    def start(self) -> None:
        """Start git now. Optional: it saves the time that git takes to start at the first request."""
        self._pipes()

    def read(self, name: str) -> Object | None:
        """The object that a ref or an oid names; None if there is none."""
        return next(self.read_many([name]))

    def read_many(self, names: Iterable[str]) -> Iterator[Object | None]:
        """As `read`, in this order."""
        asked = list(names)
        for start in range(0, len(asked), REQUESTS_AT_ONCE):
            batch = asked[start : start + REQUESTS_AT_ONCE]
            into, out = self._pipes()
            try:
                into.write("".join(f"{name}\n" for name in batch).encode())
                into.flush()
            except BrokenPipeError:
                raise KvError("git cat-file ended: is this a git repository?") from None
            yield from [_answer(out) for _ in batch]

    def blob(self, oid: bytes) -> bytes:
        """A blob's content.

        Raises:
            KvError: it is not in this repository.
        """
        return next(self.blobs([oid]))

    def blobs(self, oids: Iterable[bytes]) -> Iterator[bytes]:
        """As `blob`, in this order."""
        asked = [oid.hex() for oid in oids]
        for name, found in zip(asked, self.read_many(asked), strict=True):
            if found is None:
                raise KvError(f"object {name} is missing in this repository")
            yield found.content

    def trees(self, oids: Collection[bytes]) -> dict[bytes, bytes]:
        """Trees' contents, by oid.

        Raises:
            KvError: one is not in this repository.
        """
        new = [oid for oid in oids if oid not in self._trees]
        self._trees.update(zip(new, self.blobs(new), strict=True))
        return {oid: self._trees[oid] for oid in oids}

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        if self._process is None:
            self._process = subprocess.Popen(
                argv("cat-file", "--batch"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment(),
            )
        into, out = self._process.stdin, self._process.stdout
        if into is None or out is None:
            raise KvError("git cat-file has no pipes")
        return into, out


def _answer(out: IO[bytes]) -> Object | None:
    header = out.readline()
    words = header.split()
    if len(words) == len(Object._fields) and words[-1] != b"missing":
        content = out.read(int(words[2]))
        out.read(1)
        return Object(words[0].decode(), words[1].decode(), content)
    if words[-1:] != [b"missing"]:
        raise KvError("git cat-file ended: is this a git repository?")
    return None
