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

    member_since  the step at which its present membership began: when it first made itself ready to lead,
                  or to join the sync set, before the record said so. Earlier in doubt
    backup        a copy of its data_dir, and the step at which it was made
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = "ABCDEFG"[number]
        self.installs = 0
        self.member = Member(self.name, f"{self.name.lower()}0")  # its name, and the id of its data_dir
        self.wiped_at = -1e9
        self.unreached_until = -1e9  # a leader that dials it before does not find it
        self.disk = Disk(self.member)
        self.process: Process | None = None
        self.member_since = -1
        self.backup: tuple[Disk, int] | None = None
        self._joining_since: int | None = None
        self._led = 0
        self._eligible = False
        self._seen: tuple[ClusterRecord, Member] | None = None

    def reinstall(self, now: float) -> None:
        """An empty data_dir under the old name."""
        self.wiped_at = now
        self.installs += 1
        self.member = Member(self.name, f"{self.name.lower()}{self.installs}")
        self.disk = Disk(self.member)
        self.backup = None

    def back_up(self, step: int) -> None:
        """A copy as a crash would leave it; what a crash cuts off is cut when it is put back."""
        disk = deepcopy(self.disk)
        disk.at_journal_sync = None
        self.backup = disk, step

    def put_back(self, now: float) -> None:
        """The data_dir is as it was at the time of the backup, which stays."""
        assert self.backup is not None
        self.wiped_at = now
        self.disk = deepcopy(self.backup[0])

    def joins(self, step: int) -> None:
        """A record that names it anew may come into force from now on."""
        if self._joining_since is None:
            self._joining_since = step

    def see(self, record: "ClusterRecord") -> None:
        """That record is in force."""
        if self._seen is not None and self._seen[0] is record and self._seen[1] is self.member:
            return
        self._seen = record, self.member
        eligible = self.member in record.eligible
        begins_to_lead = record.leader == self.member and record.term > self._led
        if begins_to_lead:
            self._led = record.term
        if (begins_to_lead or (eligible and not self._eligible)) and self._joining_since is not None:
            self.member_since, self._joining_since = self._joining_since, None
        self._eligible = eligible

    def __str__(self) -> str:
        return self.name
