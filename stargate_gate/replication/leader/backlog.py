"""Which changes one standby has not confirmed yet. Pure.

Changes of one repository are sent as one. It is identified by its id: a new name on the leader changes
nothing of what was confirmed. Bounded by repositories, not by changes: beyond that the standby is given a
new full list, which covers everything.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from stargate_gate.replication.wire.delta import joined
from stargate_gate.replication.wire.messages import News

MAX_REPOSITORIES = 10_000  # with changes; some 10 MB at worst


@dataclass
class _Sent:
    """Changes of one repository that were sent.

    first_seq    the oldest that was not confirmed; `since` when it happened
    seq          the newest
    moved_at     the standby's last sign of progress on it
    received     bytes of objects that the standby has got for it, as it says
    """

    first_seq: int
    seq: int
    changes: int
    since: float
    moved_at: float
    received: int = 0


@dataclass
class _Unsent:
    news: News
    first_seq: int
    changes: int
    since: float


class Backlog:
    """Gets every change, gives the next one to send, is told what was applied. All times are of one clock.

    `holds` answers from what the standby said on this connection: a repository that it said nothing
    of counts as held once a full list was confirmed (`checked`), and not before. Until then it counts as
    held up to what was confirmed of it, and no further: what `clear` dropped may be newer. Of that too only
    MAX_REPOSITORIES are remembered, whatever a standby says; one that is forgotten waits for the list.
    """

    def __init__(self) -> None:
        self.covered = False  # a full list was confirmed, and nothing was dropped since
        self._unsent: OrderedDict[str, _Unsent] = OrderedDict()
        self._sent: dict[str, _Sent] = {}
        self._matched: OrderedDict[str, int] = (
            OrderedDict()
        )  # confirmed one by one up to there, while not covered

    def add(self, news: News, now: float) -> bool:
        """One more change; False if that is too much: then `clear` and send a full list."""
        before = self._unsent.get(news.id)
        if before is None:
            self._unsent[news.id] = _Unsent(news, news.seq, 1, now)
        else:
            before.news = joined(before.news, news)
            before.changes += 1
        return len(self._unsent) + len(self._sent) <= MAX_REPOSITORIES

    def next(self, now: float) -> News | None:
        """What to send now; from here on it counts as sent."""
        if not self._unsent:
            return None
        identity, unsent = self._unsent.popitem(last=False)
        sent = self._sent.get(identity)
        if sent is None:
            self._sent[identity] = _Sent(unsent.first_seq, unsent.news.seq, unsent.changes, unsent.since, now)
        else:
            sent.seq = unsent.news.seq
            sent.changes += unsent.changes
        return unsent.news

    def applied(self, identity: str, seq: int, now: float) -> None:
        """The standby has that change of that repository and all before it, on disk."""
        if not self.covered:
            self._match(identity, seq)
        sent = self._sent.get(identity)
        if sent is None:
            return
        sent.first_seq = max(sent.first_seq, seq + 1)
        sent.moved_at = now
        if seq >= sent.seq:
            del self._sent[identity]

    def _match(self, identity: str, seq: int) -> None:
        self._matched[identity] = max(seq, self._matched.get(identity, seq))
        self._matched.move_to_end(identity)
        if len(self._matched) > MAX_REPOSITORIES:
            self._matched.popitem(last=False)

    def progress(self, identity: str, now: float, received: int | None = None) -> None:
        """The work on that repository for the standby gets on; bytes that have come for it, if known."""
        if (sent := self._sent.get(identity)) is not None:
            sent.moved_at = now
            sent.received = sent.received if received is None else received

    def received(self, identity: str) -> int:
        """The bytes of objects that the standby has got of that repository's open changes; 0: none yet."""
        sent = self._sent.get(identity)
        return sent.received if sent is not None else 0

    def checked(self, seq: int) -> None:
        """The standby has everything of a list that covers all changes up to `seq`."""
        self._sent = {identity: sent for identity, sent in self._sent.items() if sent.seq > seq}
        for one in self._open():
            one.first_seq = max(one.first_seq, seq + 1)
        self.covered = True
        self._matched.clear()

    def clear(self) -> None:
        """A full list takes over; until it is confirmed nothing counts as held."""
        self._unsent.clear()
        self._sent.clear()
        self._matched.clear()
        self.covered = False

    def holds(self, identity: str, seq: int) -> bool:
        """Whether it has confirmed that repository as it was at `seq`, or later."""
        unsent, sent = self._unsent.get(identity), self._sent.get(identity)
        if (unsent is not None and seq >= unsent.first_seq) or (sent is not None and seq >= sent.first_seq):
            return False
        matched = self._matched.get(identity)
        return self.covered or (matched is not None and seq <= matched)

    def moved_at(self, identity: str) -> float | None:
        """The last sign of progress on that repository's open changes; None if it has none."""
        if (sent := self._sent.get(identity)) is not None:
            return max(sent.moved_at, sent.since)
        unsent = self._unsent.get(identity)
        return unsent.since if unsent is not None else None

    def held_through(self, position: int) -> int:
        """Up to which position it has confirmed everything, if `position` is that of the newest change."""
        if not self.covered:
            return 0
        return min((one.first_seq for one in self._open()), default=position + 1) - 1

    def sent_through(self, position: int) -> int:
        """Up to which position everything was sent, if `position` is that of the newest change."""
        return min((unsent.first_seq for unsent in self._unsent.values()), default=position + 1) - 1

    def lag(self, now: float) -> tuple[int, float]:
        """How many changes the standby lacks at most, and for how many seconds the oldest."""
        oldest = min((one.since for one in self._open()), default=now)
        return sum(one.changes for one in self._open()), max(0.0, now - oldest)

    def _open(self) -> Iterator[_Sent | _Unsent]:
        yield from self._unsent.values()
        yield from self._sent.values()

    def __len__(self) -> int:
        return len({*self._unsent, *self._sent})
