"""How a leader answers `stargate-refs ID`: all refs of one repository, with the number that covers them."""

import asyncio
from collections.abc import Callable

from stargate_gate.errors import UnavailableError
from stargate_gate.replication.leader.instructions import Missing, Moving, Numbered, Outcome
from stargate_gate.replication.leader.sent_states import State
from stargate_gate.replication.ports import Channel
from stargate_gate.replication.wire.messages import (
    Gone,
    RefsPart,
    SnapshotBegin,
    SnapshotEnd,
    Unreadable,
    encode,
    parts,
)
from stargate_gate.repos.store import Store


async def answer_refs(
    channel: Channel,
    term: int,
    identity: str,
    outcome: Outcome,
    *,
    store: Store,
    require_open: Callable[[], None],
) -> None:
    """Send what a reading with Purpose.SHOW has come to. `require_open` raises once the term is over.

    Raises:
        UnavailableError: the repository is being moved; the standby should ask again.
        NotLeaderError: `require_open` has raised it; the answer is not complete then.
    """
    require_open()
    match outcome:
        case Moving():
            raise UnavailableError("the repository is being moved: try again")
        case Unreadable():
            await channel.write(encode(outcome))
        case Numbered(seq, state) if state is not None:
            await _send_refs(channel, term, seq, state, require_open)
        case Missing(seq):
            deleted = await store.was_deleted(identity)
            await channel.write(encode(Gone(term, seq, identity, deleted)))


async def _send_refs(
    channel: Channel, term: int, seq: int, state: State, require_open: Callable[[], None]
) -> None:
    snapshot = state.snapshot
    begin = SnapshotBegin(term, seq, state.name, state.id, snapshot.object_format, snapshot.head)
    await channel.write(encode(begin))
    for part in parts(snapshot.refs.items()):
        await channel.write(encode(RefsPart(term, part)))
        await asyncio.sleep(0)  # the channel may take all of it at once; other tasks get their turn here
    require_open()
    await channel.write(encode(SnapshotEnd(term, len(snapshot.refs), tuple(sorted(snapshot.broken)))))
