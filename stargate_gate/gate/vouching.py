"""What the gate tells a client only when the sync set has it, and what it says when it has not.

`vouch` is the one place where a write becomes acknowledged; `Push` is one receive-pack on its way there.
"""

from collections.abc import Mapping

import structlog

from stargate_gate.errors import LeadershipLostError, StargateError, TryAgainError, UnavailableError
from stargate_gate.gate.ports import Changes, Leadership
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.repository import Repository
from stargate_gate.repos.store import Store

log = structlog.get_logger()

NOT_IN_TIME = "not replicated in time"


async def vouch(changes: Changes, leadership: Leadership, name: RepositoryName, position: int) -> None:
    """Return when the sync set has that repository as it was at `position`, and this node leads then.

    To be called inside the scope of the write, which is cancelled when the term ends; the lease is looked
    at besides, since a machine that was paused learns of its end late. Acknowledge right after it.

    Raises:
        TryAgainError: not in time; the outcome is unknown, and the message says so.
        NotLeaderError: the term is over; likewise.
    """
    try:
        await changes.replicated(name, position)
    except TryAgainError as error:
        raise TryAgainError(_with_outcome(error.message)) from error
    if not leadership.still_leads():
        node = leadership.view().node
        raise LeadershipLostError(f"{node} cannot prove any more that it leads; the outcome is unknown")


def reason_of(error: StargateError) -> str:
    """Why a ref that git has moved is not acknowledged: what stands behind it in git's table."""
    return NOT_IN_TIME if isinstance(error, TryAgainError) else _first_clause(error.message)


class Push:
    """One push into `repository`; the pumps' `Witness`. Whatever happens, `tell` once git is reaped.

    position  of the repository's creation, if it was made for this push, else 0
    waits     for the sync set before git's refs are shown. Peers do not: one may wait for itself
    """

    def __init__(
        self,
        repository: Repository,
        position: int,
        store: Store,
        changes: Changes,
        leadership: Leadership,
        *,
        waits: bool,
    ) -> None:
        self._repository = repository
        self._position = position
        self._store = store
        self._changes = changes
        self._leadership = leadership
        self._waits = waits
        self._sync_set = changes.sync_set()
        self._wrote = False
        self._untold: TryAgainError | None = None

    async def advertised(self) -> None:
        """What git has read is told; wait until the sync set has it: "up to date" acknowledges it."""
        if not self._waits:
            return
        self._position = max(self._position, await self._changes.pushed(self._repository))
        try:
            await self.vouch()
        except TryAgainError as error:
            clause = _first_clause(error.message)
            raise TryAgainError(f"{clause}; nothing new was pushed, try again") from error

    async def writing(self) -> None:
        """Note that something may be written.

        Raises:
            UnavailableError: that cannot be noted, so nothing may.
        """
        try:
            await self._changes.writing(self._repository)
        except OSError as error:
            log.warning("push_not_noted", repository=str(self._repository.name), error=str(error))
            raise UnavailableError("this node cannot take the push: its disk takes no writes") from error
        self._wrote = True

    async def tell(self) -> None:
        """Git is reaped: HEAD first, so that one change tells of both. What fails here, `vouch` says.

        A HEAD that cannot be settled fails no push. A node that has lost its leadership leaves it
        alone: the new leader's comes with the mirror.
        """
        if not self._wrote:
            return
        name = str(self._repository.name)
        if self._leadership.still_leads():
            try:
                await self._store.settle_head(self._repository)
            except (StargateError, OSError) as error:
                log.warning("head_not_settled", repository=name, error=str(error))
        try:
            self._position = max(self._position, await self._changes.written(self._repository))
        except (StargateError, OSError) as error:
            log.warning("push_not_told", repository=name, error=str(error))
            untold = f"{NOT_IN_TIME}: this node could not tell its standbys"
            self._untold = error if isinstance(error, TryAgainError) else TryAgainError(untold)

    def waits_for(self, sent_bytes: int) -> str | None:
        """What to tell the pusher of whom it waits for, who has sent that much; None: for nobody."""
        waits = self._changes.waits_for(self._repository.name, self._position)
        return waiting_line(waits, sent_bytes) if waits else None

    def warning(self) -> str | None:
        """What to tell the pusher once it is vouched for, if fewer nodes have it than had when it began."""
        now = self._changes.sync_set()
        return shortage_line(self._leadership.view().node, self._sync_set, now)

    async def vouch(self) -> None:
        """As the function, for all that was told of this push."""
        if self._untold is not None:
            raise TryAgainError(_with_outcome(self._untold.message)) from self._untold
        await vouch(self._changes, self._leadership, self._repository.name, self._position)


def waiting_line(waits: Mapping[str, int], sent_bytes: int) -> str:
    """`waits`: a standby's name → the bytes it has got. The share is a guess: its pack is another one."""
    parts = []
    for name, received in sorted(waits.items()):
        share = f" ({received * 100 // sent_bytes} %)" if 0 < received < sent_bytes else ""
        parts.append(f"{name}: {received >> 20} MiB{share}")
    return f"waiting for {', '.join(parts)}"


def shortage_line(node: str, before: frozenset[str], now: frozenset[str]) -> str | None:
    """That a push is stored on fewer nodes than the sync set had when it began; None if that is not so."""
    missing = ", ".join(sorted(before - now))
    if not missing:
        return None
    stored = f"stored on {', '.join((node, *sorted(now)))}{'' if now else ' only'}"
    return f"warning: {stored}; {missing} was late or gone, and has left the sync set"


def _first_clause(message: str) -> str:
    return message.partition(";")[0].rstrip()


def _with_outcome(message: str) -> str:
    return message if "unknown" in message else f"{message}; the outcome is unknown"
