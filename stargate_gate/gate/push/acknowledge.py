"""When a push may be acknowledged, and what its client is told if it may not.

`wait_replicated` is the only place where a write becomes acknowledged. `Push` is one receive-pack on its way
there: relay.py calls it at the points at which something must be noted on disk or waited for.

A push goes into a repository, not into a name. While it runs an administrator may delete the repository and
create another one with the same name, and an operator may move folders. Git goes on in the folder in which it
began. So `Push` notes the folder and its id before git starts, checks that they still have the name when git
is in the folder, and at the end announces what that folder holds, wherever it is then. If it is nowhere, the
push is not acknowledged. A deletion does not wait for pushes, since a push may take an hour.
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
from stargate_gate.gate.push.commands import ExpectedValues
from stargate_gate.repos.ref_files import UncertainError, read_values
from stargate_gate.repos.repository import Repository
from stargate_gate.repos.store import Store

log = structlog.get_logger()

NOT_IN_TIME = "not replicated in time"
GONE = "repository was deleted (or moved) during the push"


async def wait_replicated(changes: Changes, leadership: Leadership, identity: str, position: int) -> None:
    """Return when the write may be acknowledged. Acknowledge it right after that.

    Then the sync set has the repository with that id as of `position`, and this node leads. Called inside the
    scope of the write, which is cancelled when the term ends. The lease is checked here all the same: a
    machine that was paused notices the end of its term late.

    Raises:
        TryAgainError: not in time. The outcome is unknown, and the message says so.
        NotLeaderError: the term is over. Likewise.
    """
    try:
        await changes.replicated(identity, position)
    except TryAgainError as error:
        raise TryAgainError(_with_outcome(error.message)) from error
    if not leadership.still_leads():
        node = leadership.view().node
        raise LeadershipLostError(f"{node} cannot prove any more that it leads; the outcome is unknown")


def reason_of(error: StargateError) -> str:
    """Why a ref that git has moved is not acknowledged, as git's client shows it in its table of refs."""
    if isinstance(error, TryAgainError) and not isinstance(error, RepositoryGoneError):
        return NOT_IN_TIME
    return _first_clause(error.message)


class Push:
    """One push into `repository`; a `relay.PushObserver`. In any case call `announce` when git was reaped.

    position  of the repository's creation, if it was created for this push, else 0
    waits     whether it waits for the sync set before git's refs are shown. A peer's push does not: the peer
              may be the member that is waited for
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
        """Called before git starts.

        Raises:
            NoSuchRepositoryError, UnavailableError: the repository is gone, or has no id.
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
        self._announce_error: TryAgainError | None = None

    async def advertised(self) -> None:
        """Announce the refs that git has read, and wait until the sync set has them.

        A client that finds its value among them says "up to date", so showing a value acknowledges it.

        Raises:
            RepositoryGoneError: git may be in another folder than the one that was meant.
            TryAgainError, NotLeaderError: as `wait_replicated`.
        """
        self._require_place()
        if not self._waits:
            return
        # Refs are announced after git has read them. So what the standbys get is at least as new as what the
        # client will see, also if another push changes refs in between.
        self._position = max(self._position, await self._changes.pushed(self._identity))
        try:
            await self.wait_replicated()
        except RepositoryGoneError as error:
            raise _nothing_pushed() from error
        except TryAgainError as error:
            clause = _first_clause(error.message)
            raise TryAgainError(f"{clause}; nothing new was pushed, try again") from error

    async def writing(self) -> None:
        """Note on disk that something may be written.

        Raises:
            RepositoryGoneError: the repository was deleted meanwhile.
            UnavailableError: that cannot be noted, so nothing may be written.
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
        """Remember which refs git is asked to change."""
        self._given.feed(data)

    async def changed_nothing(self) -> bool:
        """Whether this push certainly changed nothing. Called when git was reaped: no ref changes any more.

        True exactly if git was not given the end of the list of commands, or if each ref in the list has the
        value that the client expected before the push. Git changes no ref before it has the whole pack and
        the pre-receive hook has run. So a push that was cut before that ends like this; but the refs
        themselves are read, whatever the push had reached. A ref that cannot be read counts as changed. A
        repository that was created for this push stays, and is empty.
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
            return False  # it was moved meanwhile, so another folder may have been read
        return all(value == (values[ref] or b"0" * len(value)) for ref, value in expected.items())

    async def announce(self) -> None:
        """Send the standbys what the repository holds. Called when git was reaped. Does not raise.

        If it fails, `wait_replicated` raises. HEAD is settled first, so that one change has both. A HEAD that
        cannot be settled does not fail the push. A node that has lost its leadership leaves HEAD alone: its
        mirror brings the new leader's.
        """
        if not self._wrote:
            return
        name = str(self._repository.name)
        if self._leadership.still_leads():
            # After the first push into an empty repository HEAD may name a branch that does not exist.
            try:
                if (where := await self._store.register.whereabouts(self._identity)) is not None:
                    await self._store.settle_head(where)
            except (StargateError, OSError) as error:
                log.warning("head_not_settled", repository=name, error=str(error))
        try:
            self._position = max(self._position, await self._changes.written(self._identity))
        except RepositoryGoneError as error:
            log.warning("push_into_a_deleted_repository", repository=name, id=self._identity.id)
            self._announce_error = error
        except (StargateError, OSError) as error:
            log.warning("push_not_told", repository=name, error=str(error))
            reason = f"{NOT_IN_TIME}: this node could not tell its standbys"
            self._announce_error = error if isinstance(error, TryAgainError) else TryAgainError(reason)

    def waits_for(self, sent_bytes: int) -> str | None:
        """A line for the client about the standbys that it waits for; None if there are none.

        sent_bytes  by the client in this push
        """
        waits = self._changes.waits_for(self._identity.id, self._position)
        return waiting_line(waits, sent_bytes) if waits else None

    def warning(self) -> str | None:
        """A line for the client if fewer nodes have the push than were in the sync set when it began."""
        now = self._changes.sync_set()
        return shortage_line(self._leadership.view().node, self._sync_set, now)

    async def wait_replicated(self) -> None:
        """As the function of that name, for everything that was announced for this push.

        Raises:
            RepositoryGoneError: the repository was deleted meanwhile.
            TryAgainError, NotLeaderError: as the function.
        """
        if isinstance(self._announce_error, RepositoryGoneError):
            raise RepositoryGoneError(f"{GONE}; the outcome is unknown") from self._announce_error
        if self._announce_error is not None:
            raise TryAgainError(_with_outcome(self._announce_error.message)) from self._announce_error
        await wait_replicated(self._changes, self._leadership, self._identity.id, self._position)
        if not self._store.register.has(self._identity.id):
            raise RepositoryGoneError(f"{GONE}; the outcome is unknown")

    def _require_place(self) -> None:
        """The folder that was meant still has the name, now that git is in the folder of that name."""
        try:
            if self._store.register.identity(self._repository) == self._identity:
                return
        except (NoSuchRepositoryError, UnavailableError):
            pass
        raise _nothing_pushed()


def _nothing_pushed() -> RepositoryGoneError:
    return RepositoryGoneError(f"{GONE}; nothing was changed, try again")


def without_change(error: LeadershipLostError) -> LeadershipLostError:
    """`error`, for a push that certainly changed nothing."""
    return LeadershipLostError(f"{_first_clause(error.message)}; nothing was changed, push again")


def waiting_line(waits: Mapping[str, int], sent_bytes: int) -> str:
    """The text of `Push.waits_for`. The share is an estimate: the standby's pack differs from the client's.

    waits  name of a standby → bytes that it has received
    """
    parts = []
    for name, received in sorted(waits.items()):
        share = f" ({received * 100 // sent_bytes} %)" if 0 < received < sent_bytes else ""
        parts.append(f"{name}: {received >> 20} MiB{share}")
    return f"waiting for {', '.join(parts)}"


def shortage_line(node: str, before: frozenset[str], now: frozenset[str]) -> str | None:
    """The text of `Push.warning`, for the sync sets `before` the push and `now`; None if no member left."""
    missing = ", ".join(sorted(before - now))
    if not missing:
        return None
    stored = f"stored on {', '.join((node, *sorted(now)))}{'' if now else ' only'}"
    return f"warning: {stored}; {missing} was late or gone, and has left the sync set"


def _first_clause(message: str) -> str:
    return message.partition(";")[0].rstrip()


def _with_outcome(message: str) -> str:
    return message if "unknown" in message else f"{message}; the outcome is unknown"
