"""Stops or kills a process at one system call of its, or of a child of its: crashes to the point.

strace(1) does it from outside, so the product has no code for it. The signal comes on entering the call:
with SIGKILL the call is not made, with SIGSTOP it is made and the process stops before it goes on.
"""

from collections.abc import Sequence
from pathlib import Path

from tests.support.cluster import NodeProcess, eventually
from tests.support.strace import Strace


class Trap(Strace):
    """A tracer that is attached to a running node and everything it starts. A context manager.

    syscall   which call springs it, at its `when`-th time
    paths     the files that count, as the process names them, or as they are open
    signal    "KILL" or "STOP", for the process that made the call
    """

    def __init__(
        self, node: NodeProcess, syscall: str, paths: Sequence[Path | str], signal: str, *, when: int = 1
    ) -> None:
        self._node = node
        self._signal = f"SIG{signal}"
        inject = f"inject={syscall}:signal={signal}:when={when}"
        files = (word for path in paths for word in ("-P", str(path)))
        super().__init__(node, ".trap", ["-e", f"trace={syscall}", "-e", inject, *files])

    def wait_sprung(self) -> None:
        """Wait until a process has run into it."""
        eventually(self._sprung, f"{self._node.name}: {' '.join(self.argv)}")

    def _sprung(self) -> bool:
        return self.log.exists() and any(
            word in self.log.read_text(errors="replace")
            for word in (f"stopped by {self._signal}", f"killed by {self._signal}")
        )


def ref_lock(node: NodeProcess, repository: str, ref: str) -> list[str]:
    """The lock file of a ref, in every way that git may name it; git moves it into its place."""
    root = node.repository(repository)
    return [f"{root}/./{ref}.lock", f"{root}/{ref}.lock", f"./{ref}.lock", f"{ref}.lock"]
