"""What a crash, or a session that was cut, has left half done is finished: steps of a job. Pure.

Of each repository with an intent, one of these becomes true, on disk:

    completed   all of the change is there
    undone      it cannot be completed: this git refuses it, or its objects are damaged. Then nothing of the
                change is there: what other nodes have acknowledged before it is whole again
    given up    it cannot be undone either. That is logged, and the caller is told

Before this node leads, the new values of a change that is not completed are kept as rescued refs. The lost
leader may have acknowledged them alone (mode `async`), and this node may be the only one that has them.
Otherwise there is a leader, and the comparison with it follows.

One repository holds up no other: a standby follows all the same, and compares with the leader whatever was
given up; a node may lead all the same. But an error of the disk itself is an error of this node: then
the caller is told that it cannot be done now.

Rejected: to end the session, or the promotion, whatever the error is. A ref that a newer git of the leader's
takes and this git refuses would keep this node from following and from leading for ever.
"""

import re
from collections.abc import Callable, Mapping

from stargate_gate.errors import GitFailedError, StargateError
from stargate_gate.replication.rescue.values import Value, lacking
from stargate_gate.replication.standby.answers import (
    NOTED_BEFORE_THE_CRASH,
    Copy,
    Histories,
    OnDisk,
    TermOverError,
)
from stargate_gate.replication.standby.apply_steps import cut
from stargate_gate.replication.standby.intent import Intent, Remaining, remaining, undoing
from stargate_gate.replication.standby.rescue_steps import NOBODY_KNOWS
from stargate_gate.replication.standby.steps import (
    ChangeHead,
    ChangeRefs,
    CompareHistories,
    Compute,
    Find,
    KeepRefs,
    Log,
    NoteRescued,
    ReadIntents,
    ReadRefs,
    RemoveIntent,
    SettleFolders,
    Steps,
    SyncRepository,
)
from stargate_gate.repos.plan import RefChange

SHOWN = 5  # values in a line of the log
ATTEMPTS = 3  # an operator may move the repository just now, or have a ref locked
_DISK = re.compile(
    r"no space left|disk quota|read-only file system|cannot allocate|out of memory", re.IGNORECASE
)


def prepare() -> Steps[list[Intent]]:
    """Before anything is compared, and before this node leads: what was received is complete, and on disk.

    So is what was left to the system: a ref that was moved and is not on disk looks equal, too.
    Returns as `complete`.
    """
    yield SettleFolders()
    return (yield from complete())


def complete(*, rescue: bool = False) -> Steps[list[Intent]]:
    """Finish every intent. For when nothing else works on the repositories.

    rescue  keep the values of what is not completed: there is no leader to get them from
    Returns those that were given up. They are still written down.
    """
    given_up = []
    intents: list[Intent] = yield ReadIntents()
    for intent in intents:
        synced = yield from _finish(intent, rescue=rescue)
        if synced is None:
            given_up.append(intent)
        else:
            yield RemoveIntent(intent.repository_id, synced)
    return given_up


def _finish(intent: Intent, *, rescue: bool) -> Steps[OnDisk | None]:
    """Completed, or undone; None: given up."""
    why: Exception | None = None
    for _ in range(ATTEMPTS):
        try:
            return (yield from _complete(intent))
        except (StargateError, ValueError) as error:
            _raise_if_not_of_one_repository(error)
            why = error
    try:
        synced, undone = yield from _change(intent, undoing)
    except (StargateError, ValueError) as error:
        _raise_if_not_of_one_repository(error)
        rescued = (yield from _rescue(intent)) if rescue else 0
        yield Log.of(
            "error",
            "intent_given_up",
            repository=intent.name,
            error=str(why),
            undo=str(error),
            rescued=rescued,
            remedy="compare this repository with the other nodes' copies",
        )
        return None
    rescued = (yield from _rescue(intent)) if rescue else 0
    values = [f"{change.ref} {change.old}" for change in undone or () if change.old is not None]
    yield Log.of(
        "error",
        "intent_undone",
        repository=intent.name,
        error=str(why),
        values=values[:SHOWN],
        rescued=rescued,
    )
    return synced


def _rescue(intent: Intent) -> Steps[int]:
    """Keep the new values of the change as rescued refs, unless other refs here reach them; how many.

    0 also if the objects are damaged. The intent must still be on disk: after a crash this is done again.
    """
    copy: Copy | None = yield Find(intent.repository_id)
    if copy is None:
        return 0
    changes = {change for transaction in intent.transactions for change in transaction}
    try:
        refs: Mapping[str, str] = (yield ReadRefs(copy)).refs
        values = tuple(
            sorted(
                Value(change.ref, change.new, NOBODY_KNOWS)
                for change in changes
                if change.new is not None and refs.get(change.ref) != change.new
            )
        )
        tips = frozenset(refs.values())
        histories: Histories = yield CompareHistories(copy, values, tips)
        lost = lacking(values, histories.kinds, histories.beyond, tips)
        if not lost:
            return 0
        kept: OnDisk = yield KeepRefs(copy, lost)
    except (StargateError, ValueError) as error:
        _raise_if_not_of_one_repository(error)
        return 0
    yield NoteRescued(intent.repository_id, copy.name, lost, in_trash=False, kept=kept)
    return len(lost)


def _complete(intent: Intent) -> Steps[OnDisk]:
    synced, done = yield from _change(intent, remaining, head=intent.head)
    if done is not None:
        yield Log.of("info", "intent_completed", repository=intent.name, changes=len(done))
    return synced


def _change(
    intent: Intent, decide: Callable[[Intent, Mapping[str, str]], Remaining], *, head: str = ""
) -> Steps[tuple[OnDisk, list[RefChange] | None]]:
    """Do what `decide` says is left to do, and return it; None: there is no such repository any more.

    head  for HEAD, unless some ref does not fit
    """
    copy: Copy | None = yield Find(intent.repository_id)
    if copy is None:
        return NOTED_BEFORE_THE_CRASH, None
    refs: Mapping[str, str] = (yield ReadRefs(copy)).refs
    left: Remaining = yield Compute(decide, (intent, refs))
    for change in left.misfits:
        yield Log.of(
            "error",
            "intent_does_not_fit",
            repository=intent.name,
            ref=change.ref,
            old=change.old,
            new=change.new,
        )
    noted = NOTED_BEFORE_THE_CRASH
    for transaction in left.transactions:
        for step in (yield Compute(cut, (transaction,))):
            yield ChangeRefs(copy, step.changes, step.packed, noted, noted, noted)
    if head and not left.misfits:
        yield ChangeHead(copy, head, noted)
    synced: OnDisk = yield SyncRepository(copy)
    return synced, [change for transaction in left.transactions for change in transaction]


def _raise_if_not_of_one_repository(error: Exception) -> None:
    if isinstance(error, TermOverError):
        raise error
    text = error.stderr if isinstance(error, GitFailedError) else str(error)
    if _DISK.search(text):
        raise error
