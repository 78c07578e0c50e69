"""A machine: a name, a disk that outlives its processes, and the process that runs, if one does."""

from typing import TYPE_CHECKING

from stargate_gate.election.port import Member
from tests.simulation.disk import Disk

if TYPE_CHECKING:
    from tests.simulation.process import Process


class Node:
    """`installs` counts its data_dirs."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = "ABCDEFG"[number]
        self.installs = 0
        self.wiped_at = -1e9
        self.disk = Disk(self.member)
        self.process: Process | None = None

    @property
    def member(self) -> Member:
        return Member(self.name, f"{self.name.lower()}{self.installs}")

    def reinstall(self, now: float) -> None:
        """An empty data_dir under the old name."""
        self.wiped_at = now
        self.installs += 1
        self.disk = Disk(self.member)

    def __str__(self) -> str:
        return self.name
