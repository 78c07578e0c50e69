"""What one standby has not applied yet, as the leader knows it. Pure.

Changes of one repository are told as one. Bounded by repositories, not by changes: beyond that the
standby is given a new full list, which covers everything.
"""

from collections import OrderedDict
from dataclasses import dataclass

from stargate_gate.replication.delta import joined
from stargate_gate.replication.messages import News
from stargate_gate.repos.names import RepositoryName

MAX_REPOSITORIES = 10_000  # with changes; some 10 MB at worst


@dataclass
class _Sent:
    seq: int
    changes: int
    since: float


@dataclass
class _Unsent:
    news: News
    first_seq: int
    changes: int
    since: float


class Backlog:
    """Fed with every change, asked for the next to send, told what was applied. Times are of one clock."""

    def __init__(self) -> None:
        self._unsent: OrderedDict[RepositoryName, _Unsent] = OrderedDict()
        self._sent: dict[RepositoryName, _Sent] = {}

    def add(self, news: News, now: float) -> bool:
        """One more change; False if that is too much: then `clear` and send a full list."""
        before = self._unsent.get(news.name)
        if before is None:
            self._unsent[news.name] = _Unsent(news, news.seq, 1, now)
        else:
            before.news = joined(before.news, news)
            before.changes += 1
        return len(self._unsent) + len(self._sent) <= MAX_REPOSITORIES

    def next(self) -> News | None:
        """What to send now; from here on it counts as sent."""
        if not self._unsent:
            return None
        name, unsent = self._unsent.popitem(last=False)
        sent = self._sent.get(name)
        if sent is None:
            self._sent[name] = _Sent(unsent.news.seq, unsent.changes, unsent.since)
        else:
            sent.seq = unsent.news.seq
            sent.changes += unsent.changes
        return unsent.news

    def applied(self, name: RepositoryName, seq: int) -> None:
        """The standby has that change. An older one than what was sent last says nothing."""
        sent = self._sent.get(name)
        if sent is not None and seq >= sent.seq:
            del self._sent[name]

    def checked(self, seq: int) -> None:
        """The standby has everything up to `seq`."""
        self._sent = {name: sent for name, sent in self._sent.items() if sent.seq > seq}

    def clear(self) -> None:
        """A full list takes over."""
        self._unsent.clear()
        self._sent.clear()

    def sent_through(self, position: int) -> int:
        """Up to which position everything was sent, if `position` is that of the newest change."""
        return min((unsent.first_seq for unsent in self._unsent.values()), default=position + 1) - 1

    def lag(self, now: float) -> tuple[int, float]:
        """How many changes the standby lacks at most, and for how many seconds the oldest."""
        unsent, sent = self._unsent.values(), self._sent.values()
        changes = sum(one.changes for one in unsent) + sum(one.changes for one in sent)
        oldest = min((*(one.since for one in unsent), *(one.since for one in sent)), default=now)
        return changes, max(0.0, now - oldest)

    def __len__(self) -> int:
        return len({*self._unsent, *self._sent})
