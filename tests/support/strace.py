"""strace(1), attached to a running node and everything it starts."""

import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tests.support.cluster import NodeProcess, eventually

ATTACH_LIMIT_S = 30.0


class Strace:
    """A context manager: attached on entering it. What it sees is written to `log`."""

    def __init__(self, node: NodeProcess, suffix: str, options: Sequence[str]) -> None:
        self.log = node.log_file.with_suffix(suffix)
        self.argv = ["strace", "-f", "-p", str(node.pid), "-o", str(self.log), *options]
        self._said = node.log_file.with_suffix(".tracer")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stderr=said)
        eventually(lambda: "attached" in self._said.read_text(), "the tracer attached", ATTACH_LIMIT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What was stopped stays stopped; the next start of the node ends it."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(ATTACH_LIMIT_S)
