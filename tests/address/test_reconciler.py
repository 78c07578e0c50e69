"""The floating address of a node: nobody waits for it for long, and it gets where it belongs."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest
import structlog

from stargate_gate.address.floating import CLAIM_WAIT_S, RELEASE_WAIT_S, FloatingAddress
from stargate_gate.address.port import Turn
from stargate_gate.errors import AddressError
from stargate_gate.status import AddressReport

pytestmark = pytest.mark.looptime  # seconds here are virtual


@dataclass
class Moody:
    """An address that a test tells how to fail. `calls` are what was asked, `ended` what came to its end."""

    name: str = "moody"
    keep_s: float = 1.0
    limit_s: float = 10.0
    hosts: frozenset[str] | None = frozenset()
    problem: BaseException | None = None
    takes_s: float = 0.0
    calls: list[tuple[str, str, int, str]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    running: int = 0

    async def claim(self, turn: Turn) -> None:
        await self._do("claim", turn)

    async def keep(self, turn: Turn) -> None:
        await self._do("keep", turn)

    async def release(self, turn: Turn) -> None:
        await self._do("release", turn)

    async def _do(self, step: str, turn: Turn) -> None:
        assert self.running == 0, "two at a time"
        self.calls.append((step, turn.role, turn.term, turn.reason))
        self.running += 1
        try:
            await asyncio.sleep(self.takes_s)
            if self.problem is not None:
                raise self.problem
            self.ended.append(step)
        finally:
            self.running -= 1

    def steps(self) -> list[str]:
        """The names of the calls."""
        return [call[0] for call in self.calls]


@dataclass
class Lease:
    """Whether this node leads, provably."""

    proved: bool = True

    def __call__(self) -> bool:
        return self.proved


Make = Callable[..., FloatingAddress]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Makes floating addresses, and closes them."""
    made: list[FloatingAddress] = []

    def floating(*addresses: Moody) -> FloatingAddress:
        made.append(FloatingAddress("node-a", addresses))
        return made[-1]

    yield floating
    for one in made:
        await one.close()


def now() -> float:
    """Virtual seconds."""
    return asyncio.get_running_loop().time()


async def test_a_starting_node_releases_what_an_earlier_run_left(make: Make) -> None:
    """Before anything else, and once."""
    moody = Moody()
    floating = make(moody)
    await floating.start()
    assert moody.calls == [("release", "standby", 0, "start")]
    assert floating.reports() == (AddressReport("moody", "released", None),)
    await asyncio.sleep(100)
    assert moody.steps() == ["release"]


async def test_a_leader_claims_and_keeps_and_a_standby_releases(make: Make) -> None:
    """Each with its term and reason."""
    moody = Moody()
    floating = make(moody)
    await floating.start()
    floating.claim(7, "c", Lease())
    assert await floating.settled(CLAIM_WAIT_S)
    assert floating.reports() == (AddressReport("moody", "claimed", None),)
    await asyncio.sleep(2.5)
    floating.release("step-down")
    floating.release("lost")  # the first reason counts
    assert await floating.settled(RELEASE_WAIT_S)
    assert moody.calls[1:] == [
        ("claim", "leader", 7, "takeover"),
        ("keep", "leader", 7, "takeover"),
        ("keep", "leader", 7, "takeover"),
        ("release", "standby", 7, "step-down"),
    ]


async def test_a_slow_claim_delays_nobody_beyond_the_limit(make: Make) -> None:
    """It goes on in the background; and one that is slow holds up no other."""
    slow, quick = Moody(name="slow"), Moody(name="quick")
    floating = make(slow, quick)
    await floating.start()
    slow.takes_s = 8.0
    started = now()
    floating.claim(1, "c", Lease())
    assert not await floating.settled(CLAIM_WAIT_S)
    assert now() - started == pytest.approx(CLAIM_WAIT_S)
    assert [one.state for one in floating.reports()] == ["claiming", "claimed"]
    await asyncio.sleep(7)
    assert [one.state for one in floating.reports()] == ["claimed", "claimed"]
    slow.takes_s = 0.0


async def test_a_claim_that_fails_delays_nobody_and_is_tried_again_with_a_backoff(make: Make) -> None:
    """Loudly: in the report and in the log, once for as long as nothing changes, and again each minute."""
    moody = Moody()
    floating = make(moody)
    await floating.start()
    moody.problem = AddressError("no luck")
    with structlog.testing.capture_logs() as lines:
        started = now()
        floating.claim(1, "c", Lease())
        assert await floating.settled(CLAIM_WAIT_S)
        assert now() == started
        assert floating.reports() == (AddressReport("moody", "claiming", "no luck"),)
        await asyncio.sleep(30)
        assert 5 <= moody.steps().count("claim") <= 8
        moody.problem = None
        await asyncio.sleep(10.1)
    assert floating.reports() == (AddressReport("moody", "claimed", None),)
    failed = [line for line in lines if line["event"] == "address_not_claimed"]
    assert [(line["log_level"], line["problem"], line["term"]) for line in failed] == [
        ("error", "no luck", 1)
    ]
    assert [line["event"] for line in lines if line["log_level"] == "info"] == ["address_claimed"]


async def test_an_attempt_has_a_limit(make: Make) -> None:
    """One that hangs is given up, and tried again."""
    moody = Moody(limit_s=3.0)
    floating = make(moody)
    await floating.start()
    moody.takes_s = 1000.0
    floating.claim(1, "c", Lease())
    await asyncio.sleep(3.1)
    assert floating.reports()[0].problem == "no result within 3 s"
    moody.takes_s = 0.0
    await asyncio.sleep(1.0)
    assert floating.reports()[0].state == "claimed"


async def test_a_release_ends_a_claim_that_runs(make: Make) -> None:
    """It is not waited for: the address must go now."""
    moody = Moody()
    floating = make(moody)
    await floating.start()
    moody.takes_s = 9.0
    floating.claim(1, "c", Lease())
    await asyncio.sleep(1)
    moody.takes_s = 0.0
    started = now()
    floating.release("lost")
    assert await floating.settled(RELEASE_WAIT_S)
    assert now() == started
    assert moody.steps() == ["release", "claim", "release"]
    assert moody.ended == ["release", "release"]


async def test_a_leader_without_proof_releases_by_itself(make: Make) -> None:
    """It was frozen, wakes up, and nobody has told it yet that its lease has run out."""
    moody, lease = Moody(), Lease()
    floating = make(moody)
    await floating.start()
    floating.claim(4, "c", lease)
    await floating.settled(CLAIM_WAIT_S)
    lease.proved = False
    await asyncio.sleep(1.1)
    assert moody.calls[-1] == ("release", "standby", 4, "lost")
    count = len(moody.calls)
    await asyncio.sleep(50)
    assert len(moody.calls) == count
    floating.release("lost")
    assert await floating.settled(RELEASE_WAIT_S)
    assert len(moody.calls) == count
    assert floating.reports()[0].state == "released"


async def test_nothing_is_claimed_without_proof_from_the_start(make: Make) -> None:
    """A lease that runs out between the election and the claim."""
    moody = Moody()
    floating = make(moody)
    await floating.start()
    floating.claim(4, "c", Lease(proved=False))
    assert await floating.settled(CLAIM_WAIT_S)
    await asyncio.sleep(50)
    assert moody.steps() == ["release"]


async def test_a_release_that_fails_is_tried_again(make: Make) -> None:
    """It holds up the next leader within the limit only."""
    moody = Moody()
    floating = make(moody)
    await floating.start()
    floating.claim(1, "c", Lease())
    await floating.settled(CLAIM_WAIT_S)
    moody.problem = AddressError("busy")
    floating.release("step-down")
    assert await floating.settled(RELEASE_WAIT_S)
    assert floating.reports() == (AddressReport("moody", "releasing", "busy"),)
    moody.problem = None
    await asyncio.sleep(1)
    assert floating.reports() == (AddressReport("moody", "released", None),)


async def test_what_was_lost_is_claimed_again(make: Make) -> None:
    """Somebody has taken the address away by hand: keeping it fails once, and mends it."""
    moody = Moody()
    floating = make(moody)
    await floating.start()
    floating.claim(1, "c", Lease())
    await floating.settled(CLAIM_WAIT_S)
    moody.problem = AddressError("gone")
    await asyncio.sleep(1.1)
    assert floating.reports()[0].state == "claiming"
    moody.problem = None
    await asyncio.sleep(2)
    assert moody.steps()[-2:] == ["claim", "keep"]
    assert floating.reports()[0] == AddressReport("moody", "claimed", None)


async def test_a_mistake_of_ours_ends_neither_the_keeper_nor_the_node(make: Make) -> None:
    """It is a problem like any other, with its traceback in the log."""
    moody = Moody()
    floating = make(moody)
    await floating.start()
    moody.problem = ZeroDivisionError("a bug")
    with structlog.testing.capture_logs() as lines:
        floating.claim(1, "c", Lease())
        await floating.settled(CLAIM_WAIT_S)
    assert floating.reports()[0].problem == "unexpected ZeroDivisionError"
    assert any(line["event"] == "address_failed" and line.get("exc_info") for line in lines)
    moody.problem = None
    await asyncio.sleep(1)
    assert floating.reports()[0].state == "claimed"


async def test_a_node_that_ends_waits_for_a_release_within_its_own_limit(make: Make) -> None:
    """A program of the operator's may take longer than the next leader is held up."""
    moody = Moody()
    floating = make(moody)
    await floating.start()
    floating.claim(1, "c", Lease())
    await floating.settled(CLAIM_WAIT_S)
    moody.takes_s = 5.0
    floating.release("step-down")
    assert not await floating.settled(RELEASE_WAIT_S)
    await floating.close()
    assert moody.ended[-1] == "release"
    moody.takes_s = 1000.0
    again = make(moody)
    started = now()
    await again.start()
    await again.close()
    assert now() - started <= RELEASE_WAIT_S + moody.limit_s


async def test_without_addresses_nothing_waits(make: Make) -> None:
    """As in the default configuration."""
    floating = make()
    before = time.monotonic(), now()
    await floating.start()
    floating.claim(1, "c", Lease())
    assert await floating.settled(CLAIM_WAIT_S)
    assert now() == before[1]
    assert floating.reports() == ()
