"""Stops or kills a process at one system call of its, or of a child of its: crashes to the point.

strace(1) does it from outside, so the product has no code for it. The signal comes on entering the call:
with SIGKILL the call is not made, with SIGSTOP it is made and the process stops before it goes on.
"""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.cluster import NodeProcess, eventually

ATTACH_LIMIT_S = 10.0


class Trap:
    """A tracer that is attached to a running node and everything it starts. A context manager.

    syscall   which call springs it, at its `when`-th time
    paths     the files that count, as the process names them, or as they are open
    signal    "KILL" or "STOP", for the process that made the call
    """

    def __init__(
        self, node: NodeProcess, syscall: str, paths: Sequence[Path | str], signal: str, *, when: int = 1
    ) -> None:
        self._node = node
        self._log = node.log_file.with_suffix(".trap")
        self._said = node.log_file.with_suffix(".tracer")
        self._argv = [
            *("strace", "-f", "-p", str(node.pid), "-o", str(self._log)),
            *("-e", f"trace={syscall}", "-e", f"inject={syscall}:signal={signal}:when={when}"),
            *(word for path in paths for word in ("-P", str(path))),
        ]
        self._signal = f"SIG{signal}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, stderr=said)
        eventually(lambda: "attached" in self._said.read_text(), "the tracer attached", ATTACH_LIMIT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What was stopped stays stopped; the next start of the node ends it."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(ATTACH_LIMIT_S)

    def wait_sprung(self) -> None:
        """Wait until a process has run into it."""
        eventually(self._sprung, f"{self._node.name}: {' '.join(self._argv)}")

    def _sprung(self) -> bool:
        return self._log.exists() and any(
            word in self._log.read_text(errors="replace")
            for word in (f"stopped by {self._signal}", f"killed by {self._signal}")
        )


def ref_lock(node: NodeProcess, repository: str, ref: str) -> list[str]:
    """The lock file of a ref, in every way that git may name it; git moves it into its place."""
    root = node.repository(repository)
    return [f"{root}/./{ref}.lock", f"{root}/{ref}.lock", f"./{ref}.lock", f"{ref}.lock"]
