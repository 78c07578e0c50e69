"""What real git-receive-pack answers to a request made by hand, and what a client makes of an answer."""

import hashlib
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.gate.conftest import git, work_tree

ZERO = "0" * 40
_EMPTY = b"PACK" + (2).to_bytes(4, "big") + (0).to_bytes(4, "big")
EMPTY_PACK = _EMPTY + hashlib.sha1(_EMPTY).digest()
LIMIT_S = 60


def pkt(line: str | bytes) -> bytes:
    """A pkt-line, made here and not by what is tested."""
    data = line.encode() if isinstance(line, str) else line
    return b"%04x" % (len(data) + 4) + data


def packets(stream: bytes) -> list[bytes]:
    """The payloads of a stream; a flush-pkt is an empty one. What is cut off fails."""
    found, at = [], 0
    while at < len(stream):
        length = int(stream[at : at + 4], 16)
        assert at + max(length, 4) <= len(stream), "a packet is cut off"
        found.append(stream[at + 4 : at + length] if length else b"")
        at += max(length, 4)
    return found


@dataclass(frozen=True)
class Seen:
    """What a client sees: the lines of the report, the progress, and whether all of it has ended."""

    report: tuple[bytes, ...]
    progress: bytes
    ended: bool


def seen(stream: bytes) -> Seen:
    """As git's client reads it (sideband.c, send-pack.c)."""
    outer = packets(stream)
    banded = any(packet[:1] in {b"\1", b"\2"} for packet in outer)
    if not banded:
        lines = outer[:-1] if outer and not outer[-1] else outer
        return Seen(tuple(lines), b"", ended=bool(outer) and not outer[-1])
    inner = packets(b"".join(packet[1:] for packet in outer if packet[:1] == b"\1"))
    assert b"" not in outer[:-1], "nothing may come after the flush"
    assert not inner or inner[-1] == b"", "the report has an end of its own"
    progress = b"".join(packet[1:] for packet in outer if packet[:1] == b"\2")
    return Seen(tuple(inner[:-1]), progress, ended=not outer[-1])


@dataclass(frozen=True)
class Repo:
    """A bare repository with one commit, and the hooks that it runs."""

    path: Path
    oid: str

    def hook(self, name: str, script: str) -> None:
        """Install a hook."""
        file = self.path / "hooks" / name
        file.write_text(script)
        file.chmod(0o755)

    def answer(self, *request: bytes) -> bytes:
        """What git writes after its advertisement. A request may be cut off."""
        with subprocess.Popen(
            ["git", "-c", "receive.advertisePushOptions=true", "receive-pack", self.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "GIT_PROTOCOL": ""},
        ) as process:
            out, _ = process.communicate(b"".join(request), timeout=LIMIT_S)
        return after_flush(out)

    def create(self, capabilities: str, *refs: str, oid: str | None = None) -> bytes:
        """A request that makes these refs."""
        return commands(capabilities, [f"{ZERO} {oid or self.oid} {ref}" for ref in refs]) + EMPTY_PACK

    def delete(self, capabilities: str, *refs: str) -> bytes:
        """A request that removes these refs: without a pack."""
        return commands(capabilities, [f"{self.oid} {ZERO} {ref}" for ref in refs])


def commands(capabilities: str, lines: Sequence[str]) -> bytes:
    """The list of commands."""
    first, *more = lines
    return pkt(f"{first}\0 {capabilities}") + b"".join(map(pkt, more)) + b"0000"


def after_flush(stream: bytes) -> bytes:
    """What comes after the first flush-pkt."""
    at = 0
    while (length := int(stream[at : at + 4], 16)) != 0:
        at += length
    return stream[at + 4 :]


def bare_repository(root: Path) -> Repo:
    """Made by hand."""
    tree = work_tree(root / "tree")
    git("clone", "-q", "--bare", str(tree), str(root / "bare"), cwd=root)
    return Repo(root / "bare", git("rev-parse", "HEAD", cwd=tree).strip())
