"""A term that was seen to have run out is over."""

from pathlib import Path

import pytest

from stargate_gate.election.flock.bootstrap import bootstrap
from stargate_gate.errors import LeadershipLostError
from tests.support.elections import Clock, member, node, state_of


async def test_a_lease_that_was_seen_to_run_out_does_not_come_back(tmp_path: Path):
    """A record that is refused for it ends the term, although a proof that was asked for before arrives late.

    Else the sync set's keeper has given up for good, and the node leads on and acknowledges nothing: found
    by the simulator.
    """
    lock, clock = tmp_path / "leader.lock", Clock()
    bootstrap(lock, state_of(tmp_path, "a"), member("a"))
    async with node(tmp_path, "a", lock, clock=clock) as a:
        a.start(once=True)
        await a.leads()
        clock.ahead_s = 60.0
        with pytest.raises(LeadershipLostError):
            await a.term.update(position=1)
        clock.ahead_s = 0.0
        assert not a.term.valid()
        await a.ended()
        assert a.lost
