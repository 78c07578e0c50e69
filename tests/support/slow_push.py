"""A push that a test holds in the middle of its pack: stock ssh, with git's protocol spoken by hand."""

import os
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.cluster import Client, NodeProcess, eventually

LIMIT_S = 60.0
ZERO = "0" * 40
FIRST_BYTES = 64  # one SSH packet: nothing of it is on the way any more once git has seen the pack's head
CAPABILITIES = "report-status side-band-64k agent=test"


class SlowPush:
    """One new branch on its way. A context manager: the client is gone afterwards.

    ssh   the client's ssh, with everything up to the command: `Client.ssh_argv` and the host
    tree  a work tree; a new commit in it is pushed, with a file that does not compress
    """

    def __init__(
        self, client: Client, ssh: Sequence[str], tree: Path, branch: str, *, repository: str = "org/app"
    ) -> None:
        self.oid = client.commit(tree, f"slow {branch} {secrets.token_hex(4)}", size_bytes=256 * 1024)
        pack = subprocess.run(
            ["git", "pack-objects", "--revs", "--stdout", "-q"],
            cwd=tree, input=f"{self.oid}\n".encode(), capture_output=True, check=True, timeout=LIMIT_S,
        ).stdout  # fmt: skip
        self._repository = repository
        command = f"{ZERO} {self.oid} refs/heads/{branch}\0 {CAPABILITIES}\n".encode()
        self._request = b"%04x" % (len(command) + 4) + command + b"0000"
        self._halves = pack[:FIRST_BYTES], pack[FIRST_BYTES:]
        self._process = subprocess.Popen(
            [*ssh, f"git-receive-pack '{repository}'"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
        )  # fmt: skip
        self._input = self._process.stdin

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate(timeout=LIMIT_S)
        if self._input is not None:
            self._input.close()

    def begin(self, node: NodeProcess) -> Self:
        """Git on `node` has the commands and the head of the pack; nothing more is on its way."""
        before = set(self._quarantines(node))
        self._advertisement()
        self._send(self._request + self._halves[0])
        eventually(lambda: set(self._quarantines(node)) - before, "git has begun to take the pack")
        return self

    def _quarantines(self, node: NodeProcess) -> Iterator[Path]:
        return node.repository(self._repository).glob("objects/tmp_objdir-incoming-*")

    def finish(self) -> tuple[int, bytes, str]:
        """Send the rest; what `end` says."""
        self._send(self._halves[1])
        return self.end()

    def end(self, limit_s: float = LIMIT_S) -> tuple[int, bytes, str]:
        """Wait for the server's end: ssh's exit status, the report, and what it says on stderr."""
        self._input, self._process.stdin = self._process.stdin or self._input, None  # it stays open
        out, err = self._process.communicate(timeout=limit_s)
        return self._process.returncode, out, err.decode(errors="replace")

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        view = memoryview(data)
        while view:
            view = view[self._process.stdin.write(view) :]

    def _advertisement(self) -> None:
        while header := self._read(4):
            length = int(header, 16)
            if not length:
                return
            self._read(length - 4)

    def _read(self, n: int) -> bytes:
        assert self._process.stdout is not None
        data = b""
        while len(data) < n:
            part = os.read(self._process.stdout.fileno(), n - len(data))
            if not part:
                _, _, err = self.end()
                raise AssertionError(f"the server has ended: {err}")
            data += part
        return data
