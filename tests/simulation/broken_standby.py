"""The product's standby, each time with one rule broken: what mutations.py puts in place of its methods."""

from typing import Any

from stargate_gate.replication.rescue.unreplicated import Mark
from stargate_gate.replication.standby.answers import NOTHING_MARKED, NOTHING_TO_RESCUE, OnDisk
from stargate_gate.replication.standby.apply_steps import ApplySteps
from stargate_gate.replication.standby.core import StandbySession
from stargate_gate.replication.standby.intent_steps import complete
from stargate_gate.replication.standby.rescue_steps import RescueSteps
from stargate_gate.replication.standby.steps import (
    FetchObjects,
    NoteReplicated,
    NoteSettled,
    RemoveIntent,
    Steps,
)
from stargate_gate.replication.wire.numbers import FIRST_POSITION
from stargate_gate.repos.plan import RefChange
from tests.simulation.mutation import Patch

LIE = OnDisk("it is not")


def _nothing() -> Steps[Any]:
    """A job's part that does nothing."""
    return
    yield


# -- what is confirmed ---------------------------------------------------------------------------------


def _finish(_: ApplySteps, __: Any, identity: str | None) -> Steps[OnDisk]:
    if identity is not None:
        yield RemoveIntent(identity, LIE)
    return LIE


def _owe(session: StandbySession, news: Any) -> None:
    session.queue.add(news, session.now)
    session._acks.applied(news.id, news.seq, LIE)


def _failed(session: StandbySession, job: Any, _: str) -> None:
    session.queue.done(job)
    if job.news.seq:
        session._acks.applied(job.id, job.news.seq, LIE)
    session._see_what_is_done(job)


NOT_SYNCED = (Patch(ApplySteps, "_finish", _finish),)
CONFIRMED_AT_ONCE = (Patch(StandbySession, "_owe", _owe),)
CHECKED_AT_ONCE = (Patch(StandbySession, "_tickets", lambda _: {}),)
NOT_BUSY = (Patch(StandbySession, "_busy", lambda _: {}),)
NOT_SETTLED = (Patch(StandbySession, "_preparation", lambda _: complete()),)
ANY_TERM = (Patch(StandbySession, "_require_term", lambda _, __: None),)
FAILED_IS_DONE = (Patch(StandbySession, "_failed", _failed),)


# -- what is written down before -----------------------------------------------------------------------


def _intend(*_: Any) -> Steps[tuple[None, bool]]:
    yield from _nothing()
    return None, False


_fetch_with_head, _change_refs = ApplySteps._fetch_with_head, ApplySteps._change_refs
_late: dict[int, Mark | None] = {}


def _fetch_unmarked(self: ApplySteps, copy: Any, oids: Any, head: Any, mark: Mark | None) -> Steps[Any]:
    _late[id(copy)] = mark
    head, _ = yield from _fetch_with_head(self, copy, oids, head, None)
    return head, NOTHING_MARKED


def _change_and_mark(self: ApplySteps, copy: Any, *others: Any) -> Steps[None]:
    mark = _late.pop(id(copy), None)
    yield from _change_refs(self, copy, *others)
    yield FetchObjects(copy, frozenset(), mark)


NO_INTENT = (Patch(ApplySteps, "_intend", _intend),)
MARKED_AFTER = (
    Patch(ApplySteps, "_fetch_with_head", _fetch_unmarked),
    Patch(ApplySteps, "_change_refs", _change_and_mark),
)


# -- what is rescued -----------------------------------------------------------------------------------


def keep_nothing(*_: Any, **__: Any) -> Steps[OnDisk]:
    yield from _nothing()
    return NOTHING_TO_RESCUE


def _keep_no_whole(*_: Any, **__: Any) -> Steps[None]:
    yield from _nothing()


_overwrite, _keep = ApplySteps._overwrite, RescueSteps.keep


def _overwrite_and_keep(self: ApplySteps, copy: Any, wanted: Any, *others: Any, **more: Any) -> Steps[Any]:
    rescue, self._rescue = self._rescue, _Careless()  # type: ignore[assignment]
    steps = _overwrite(self, copy, wanted, *others, **more)
    step = next(steps)  # the rescue is asked for before the first step
    self._rescue = rescue
    try:
        while True:
            try:
                answer = yield step
            except Exception as error:  # noqa: BLE001 - handed on
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as done:
        yield from _keep(rescue, copy, wanted.id, more["local"], more["goal"])
        return done.value


class _Careless:
    def keep(self, *_: Any) -> Steps[OnDisk]:
        return keep_nothing()


NO_RESCUE = (
    Patch(RescueSteps, "keep", keep_nothing),
    Patch(RescueSteps, "keep_whole", _keep_no_whole),
)
RESCUE_AFTER = (Patch(ApplySteps, "_overwrite", _overwrite_and_keep),)


# -- what is settled -----------------------------------------------------------------------------------


def _settle(self: ApplySteps, identity: str, copy: Any, seq: int) -> Steps[None]:
    yield NoteSettled(self._term, seq, identity, copy.name)
    yield NoteReplicated(self._term, max(FIRST_POSITION, seq))


def _settle_all(session: StandbySession, seq: int) -> None:
    session._out.append(NoteSettled(session._term, seq, None, None))
    session._out.append(NoteReplicated(session._term, max(FIRST_POSITION, seq)))


SETTLED_IS_REPLICATED = (
    Patch(ApplySteps, "_settle", _settle),
    Patch(StandbySession, "_settle_all", _settle_all),
)


def _one_transaction(local: dict[str, str], wanted: dict[str, str]) -> list[list[RefChange]]:
    changes = [
        RefChange(ref, local.get(ref), wanted.get(ref))
        for ref in sorted({*local, *wanted})
        if local.get(ref) != wanted.get(ref)
    ]
    return [changes] if changes else []


ONE_TRANSACTION = (Patch(ApplySteps, "plan", staticmethod(_one_transaction)),)
