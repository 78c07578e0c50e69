"""A machine: a name, a disk that outlives its processes, and the process that runs, if one does."""

from copy import deepcopy
from typing import TYPE_CHECKING

from stargate_gate.election.port import Member
from tests.simulation.disk import Disk

if TYPE_CHECKING:
    from stargate_gate.election.port import ClusterRecord
    from tests.simulation.process import Process


class Node:
    """`installs` counts its data_dirs.

    memberships  how often it has begun to lead, or has left the sync set, by a record that was in force
    backup       a copy of its data_dir, and `memberships` when it was made
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = "ABCDEFG"[number]
        self.installs = 0
        self.wiped_at = -1e9
        self.disk = Disk(self.member)
        self.process: Process | None = None
        self.memberships = 0
        self.backup: tuple[Disk, int] | None = None
        self._led = 0
        self._eligible = False

    @property
    def member(self) -> Member:
        return Member(self.name, f"{self.name.lower()}{self.installs}")

    def reinstall(self, now: float) -> None:
        """An empty data_dir under the old name."""
        self.wiped_at = now
        self.installs += 1
        self.disk = Disk(self.member)
        self.backup = None

    def back_up(self) -> None:
        """A copy as a crash would leave it; what a crash cuts off is cut when it is put back."""
        disk = deepcopy(self.disk)
        disk.at_journal_sync = None
        self.backup = disk, self.memberships

    def put_back(self, now: float) -> None:
        """The data_dir is as it was at the time of the backup, which stays."""
        assert self.backup is not None
        self.wiped_at = now
        self.disk = deepcopy(self.backup[0])

    def see(self, record: "ClusterRecord") -> None:
        """That record is in force."""
        eligible = self.member in record.eligible
        if self._eligible and not eligible:
            self.memberships += 1
        if record.leader == self.member and record.term > self._led:
            self.memberships += 1
            self._led = record.term
        self._eligible = eligible

    def __str__(self) -> str:
        return self.name
