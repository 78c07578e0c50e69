"""What a crash, or a session that was cut, has left half done is finished: steps of a job. Pure.

Of each repository with an intent, one of these becomes true, on disk:

    completed   all of the change is there
    undone      it cannot be completed: this git refuses it, or its objects are damaged. Then nothing of the
                change is there: what other nodes have acknowledged before it is whole again
    given up    it cannot be undone either. That is logged, and the caller is told

One repository holds up no other: a standby follows all the same, and compares with the leader whatever was
given up; a node may lead all the same. But an error of the disk itself is an error of this node: then
the caller is told that it cannot be done now.

Rejected: to end the session, or the promotion, whatever the error is. A ref that a newer git of the leader's
takes and this git refuses would keep this node from following and from leading for ever.
"""

import re
from collections.abc import Callable, Mapping

from stargate_gate.errors import GitFailedError, StargateError
from stargate_gate.replication.standby.answers import NOTED_BEFORE_THE_CRASH, Copy, OnDisk, TermOverError
from stargate_gate.replication.standby.apply_steps import cut
from stargate_gate.replication.standby.intent import Intent, Remaining, remaining, undoing
from stargate_gate.replication.standby.steps import (
    ChangeHead,
    ChangeRefs,
    Compute,
    Find,
    Log,
    ReadIntents,
    ReadRefs,
    RemoveIntent,
    SettleFolders,
    Steps,
    SyncRepository,
)

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


def complete() -> Steps[list[Intent]]:
    """Finish every intent. For when nothing else works on the repositories.

    Returns those that were given up. They are still written down.
    """
    given_up = []
    intents: list[Intent] = yield ReadIntents()
    for intent in intents:
        synced = yield from _finish(intent)
        if synced is None:
            given_up.append(intent)
        else:
            yield RemoveIntent(intent.repository_id, synced)
    return given_up


def _finish(intent: Intent) -> Steps[OnDisk | None]:
    """Completed, or undone; None: given up."""
    why: Exception | None = None
    for _ in range(ATTEMPTS):
        try:
            return (yield from _complete(intent))
        except (StargateError, ValueError) as error:
            _raise_if_not_of_one_repository(error)
            why = error
    try:
        synced = yield from _change(intent, undoing)
    except (StargateError, ValueError) as error:
        _raise_if_not_of_one_repository(error)
        yield Log.of(
            "error",
            "intent_given_up",
            repository=intent.name,
            error=str(why),
            undo=str(error),
            remedy="compare this repository with the other nodes' copies",
        )
        return None
    yield Log.of("error", "intent_undone", repository=intent.name, error=str(why))
    return synced


def _complete(intent: Intent) -> Steps[OnDisk]:
    return (yield from _change(intent, remaining, head=intent.head))


def _change(
    intent: Intent, decide: Callable[[Intent, Mapping[str, str]], Remaining], *, head: str = ""
) -> Steps[OnDisk]:
    """Do what `decide` says is left to do. `head` is what HEAD says then, unless some ref does not fit."""
    copy: Copy | None = yield Find(intent.repository_id)
    if copy is None:
        return NOTED_BEFORE_THE_CRASH
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
    if decide is remaining:
        changes = sum(map(len, left.transactions))
        yield Log.of("info", "intent_completed", repository=intent.name, changes=changes)
    return synced


def _raise_if_not_of_one_repository(error: Exception) -> None:
    if isinstance(error, TermOverError):
        raise error
    text = error.stderr if isinstance(error, GitFailedError) else str(error)
    if _DISK.search(text):
        raise error
