"""What the gate tells a client only when the sync set has it, and what it says when it has not.

`vouch` is the one place where a write becomes acknowledged; `Push` is one receive-pack on its way there.

A push is one into a repository, and not into a name. Between its beginning and its end an administrator may
delete the repository and make another one of that name, and an operator may move folders. Git goes on in
the folder in which it began. So `Push` notes that folder and its id before git starts, sees that they
still have the name once git is in there, and has told at the end what that very folder holds, wherever it
lies by then. If it lies nowhere, the push is not acknowledged. Deletions do not wait for pushes: a push may
take an hour.
"""

import asyncio
from collections.abc import Mapping

import structlog

from stargate_gate.errors import (
    LeadershipLostError,
    NoSuchRepositoryError,
    RepositoryGoneError,
    StargateError,
    TryAgainError,
    UnavailableError,
)
from stargate_gate.gate.ports import Changes, Leadership
from stargate_gate.gate.push.expected_values import ExpectedValues
from stargate_gate.repos.ref_files import UncertainError, read_values
from stargate_gate.repos.repository import Repository
from stargate_gate.repos.store import Store

log = structlog.get_logger()

NOT_IN_TIME = "not replicated in time"
GONE = "repository was deleted (or moved) during the push"


async def vouch(changes: Changes, leadership: Leadership, identity: str, position: int) -> None:
    """Return when the sync set has that repository as it was at `position`, and this node leads then.

    To be called inside the scope of the write, which is cancelled when the term ends; the lease is looked
    at besides, since a machine that was paused learns of its end late. Acknowledge right after it.

    Raises:
        TryAgainError: not in time; the outcome is unknown, and the message says so.
        NotLeaderError: the term is over; likewise.
    """
    try:
        await changes.replicated(identity, position)
    except TryAgainError as error:
        raise TryAgainError(_with_outcome(error.message)) from error
    if not leadership.still_leads():
        node = leadership.view().node
        raise LeadershipLostError(f"{node} cannot prove any more that it leads; the outcome is unknown")


def reason_of(error: StargateError) -> str:
    """Why a ref that git has moved is not acknowledged: what stands behind it in git's table."""
    if isinstance(error, TryAgainError) and not isinstance(error, RepositoryGoneError):
        return NOT_IN_TIME
    return _first_clause(error.message)


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
        """Made before git starts.

        Raises:
            NoSuchRepositoryError, UnavailableError: it is gone, or has no id.
        """
        self._repository = repository
        self._identity = store.register.identity(repository)
        self._position = position
        self._store = store
        self._changes = changes
        self._leadership = leadership
        self._waits = waits
        self._sync_set = changes.sync_set()
        self._wrote = False
        self._given = ExpectedValues()
        self._untold: TryAgainError | None = None

    async def advertised(self) -> None:
        """What git has read is told; wait until the sync set has it: "up to date" acknowledges it.

        Raises:
            RepositoryGoneError: git may be in another folder than the one that was meant.
        """
        self._require_place()
        if not self._waits:
            return
        self._position = max(self._position, await self._changes.pushed(self._identity))
        try:
            await self.vouch()
        except RepositoryGoneError as error:
            raise _nothing_pushed() from error
        except TryAgainError as error:
            clause = _first_clause(error.message)
            raise TryAgainError(f"{clause}; nothing new was pushed, try again") from error

    async def writing(self) -> None:
        """Note that something may be written.

        Raises:
            RepositoryGoneError: the repository was deleted meanwhile.
            UnavailableError: that cannot be noted, so nothing may.
        """
        try:
            await self._changes.writing(self._identity)
        except RepositoryGoneError as error:
            raise _nothing_pushed() from error
        except OSError as error:
            log.warning("push_not_noted", repository=str(self._repository.name), error=str(error))
            raise UnavailableError("this node cannot take the push: its disk takes no writes") from error
        self._wrote = True

    def given(self, data: bytes) -> None:
        """Remember what git was asked to do."""
        self._given.feed(data)

    async def changed_nothing(self) -> bool:
        """Whether this push is known to have changed nothing. Git is reaped, and no ref will move any more.

        True exactly if git was not given the end of the list of commands, or if each ref that the list
        names has the very value that the client took it to have. Git moves no ref before it has the whole
        pack and the pre-receive hook has run, so that is how a push ends that was cut before; but the
        refs themselves are looked at, and not how far it had come. What cannot be read counts as changed.
        A repository that was made for this push stays, and is empty.
        """
        if not self._given.complete:
            return True
        expected = self._given.expected
        where = await self._store.register.whereabouts(self._identity)
        if expected is None or where is None:
            return False
        try:
            values = await asyncio.to_thread(read_values, where.path, list(expected))
        except (UncertainError, OSError):
            return False
        if await self._store.register.whereabouts(self._identity) != where:
            return False  # it was moved meanwhile
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
                if (where := await self._store.register.whereabouts(self._identity)) is not None:
                    await self._store.settle_head(where)
            except (StargateError, OSError) as error:
                log.warning("head_not_settled", repository=name, error=str(error))
        try:
            self._position = max(self._position, await self._changes.written(self._identity))
        except RepositoryGoneError as error:
            log.warning("push_into_a_deleted_repository", repository=name, id=self._identity.id)
            self._untold = error
        except (StargateError, OSError) as error:
            log.warning("push_not_told", repository=name, error=str(error))
            untold = f"{NOT_IN_TIME}: this node could not tell its standbys"
            self._untold = error if isinstance(error, TryAgainError) else TryAgainError(untold)

    def waits_for(self, sent_bytes: int) -> str | None:
        """What to tell the pusher of whom it waits for, who has sent that much; None: for nobody."""
        waits = self._changes.waits_for(self._identity.id, self._position)
        return waiting_line(waits, sent_bytes) if waits else None

    def warning(self) -> str | None:
        """What to tell the pusher once it is vouched for, if fewer nodes have it than had when it began."""
        now = self._changes.sync_set()
        return shortage_line(self._leadership.view().node, self._sync_set, now)

    async def vouch(self) -> None:
        """As the function, for all that was told of this push.

        Raises:
            RepositoryGoneError: the repository was deleted meanwhile.
            TryAgainError, NotLeaderError: as the function.
        """
        if isinstance(self._untold, RepositoryGoneError):
            raise RepositoryGoneError(f"{GONE}; the outcome is unknown") from self._untold
        if self._untold is not None:
            raise TryAgainError(_with_outcome(self._untold.message)) from self._untold
        await vouch(self._changes, self._leadership, self._identity.id, self._position)
        if not self._store.register.has(self._identity.id):
            raise RepositoryGoneError(f"{GONE}; the outcome is unknown")

    def _require_place(self) -> None:
        """The folder that was meant has its name still, now that git is in a folder of that name."""
        try:
            if self._store.register.identity(self._repository) == self._identity:
                return
        except (NoSuchRepositoryError, UnavailableError):
            pass
        raise _nothing_pushed()


def _nothing_pushed() -> RepositoryGoneError:
    return RepositoryGoneError(f"{GONE}; nothing was changed, try again")


def without_change(error: LeadershipLostError) -> LeadershipLostError:
    """The same loss, for a push that is known to have changed nothing."""
    return LeadershipLostError(f"{_first_clause(error.message)}; nothing was changed, push again")


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
