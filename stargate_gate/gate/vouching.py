"""What the gate tells a client only when the sync set has it, and what it says when it has not.

`vouch` is the one place where a write becomes acknowledged; `Push` is one receive-pack on its way there.
"""

import asyncio

import structlog

from stargate_gate.errors import LeadershipLostError, StargateError, TryAgainError, UnavailableError
from stargate_gate.gate.commandlist import PushCommands
from stargate_gate.gate.ports import Changes, Leadership
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.refvalues import UncertainError, read_values
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
        self._wrote = False
        self._commands = PushCommands()
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

    def given(self, data: bytes) -> None:
        """Remember what git was asked to do."""
        self._commands.feed(data)

    async def changed_nothing(self) -> bool:
        """Whether this push is known to have changed nothing. Git is reaped, and no ref will move any more.

        True exactly if git was not given the end of the list of commands, or if each ref that the list
        names has the very value that the client took it to have. Git moves no ref before it has the whole
        pack and the pre-receive hook has run, so that is how a push ends that was cut before; but the
        refs themselves are looked at, and not how far it had come. What cannot be read counts as changed.
        A repository that was made for this push stays, and is empty.
        """
        if not self._commands.complete:
            return True
        expected = self._commands.expected
        if expected is None:
            return False
        try:
            values = await asyncio.to_thread(read_values, self._repository.path, list(expected))
        except (UncertainError, OSError):
            return False
        return all(value == (values[ref] or b"0" * len(value)) for ref, value in expected.items())

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

    async def vouch(self) -> None:
        """As the function, for all that was told of this push."""
        if self._untold is not None:
            raise TryAgainError(_with_outcome(self._untold.message)) from self._untold
        await vouch(self._changes, self._leadership, self._repository.name, self._position)


def without_change(error: LeadershipLostError) -> LeadershipLostError:
    """The same loss, for a push that is known to have changed nothing."""
    return LeadershipLostError(f"{_first_clause(error.message)}; nothing was changed, push again")


def _first_clause(message: str) -> str:
    return message.partition(";")[0].rstrip()


def _with_outcome(message: str) -> str:
    return message if "unknown" in message else f"{message}; the outcome is unknown"
