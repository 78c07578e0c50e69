"""The lifecycle on a real lock file with a real feed: a term that cannot be opened is tried again."""

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from stargate_gate.address.floating import FloatingAddress
from stargate_gate.aio.backoff import Backoff
from stargate_gate.aio.tasks import Signal
from stargate_gate.config.model import Config
from stargate_gate.datadir.locks import LeadingLock
from stargate_gate.election.elector import Elector
from stargate_gate.election.flock.bootstrap import bootstrap
from stargate_gate.election.flock.engine import FlockHandle
from stargate_gate.election.port import ClusterRecord, Member
from stargate_gate.election.term import Term
from stargate_gate.errors import ElectionUnavailableError, UnavailableError
from stargate_gate.node import lifecycle as lifecycle_module
from stargate_gate.node.leadership import NodeLeadership
from stargate_gate.node.lifecycle import Lifecycle, NobodyToFollow
from stargate_gate.node.term_changes import LedTerm, TermChanges
from stargate_gate.replication.leader.context import FeedSettings
from stargate_gate.replication.leader.feed import Feed
from stargate_gate.replication.leader.reach import no_peers
from stargate_gate.replication.leader.sync_rules import Limits
from stargate_gate.replication.leader.unconfirmed import Unconfirmed
from stargate_gate.replication.rescue.journal import NoJournal
from stargate_gate.replication.wire.about import Profile
from stargate_gate.repos.durable import FolderSyncs
from stargate_gate.repos.housekeeping import Housekeeping
from stargate_gate.repos.repository import Repository
from stargate_gate.status import StandbyStatus
from tests.support.elections import LIMIT_S, member, node, state_of
from tests.support.room import Room, open_room

A, B = member("a"), member("b")


class NoClients:
    """Nobody is connected."""

    def delay_connections(self) -> None:
        pass

    def accept_connections(self) -> None:
        pass

    async def leave(self, finishing: Collection["asyncio.Task[Any]"], limit_s: float) -> None:
        pass


class Candidate:
    """A node's lifecycle. It is node-b, a member of the sync set of node-a, which is gone."""

    def __init__(self, room: Room, elector: Elector) -> None:
        self.terms: list[int] = []
        self.leading = asyncio.Event()
        self.failing_s = 0.0
        self.repositories = room.datadir.repositories
        self.lock = LeadingLock(room.datadir)
        self.leadership = NodeLeadership(B.name, elector.view, lambda: None, Signal())
        self.led = LedTerm()

        settings = FeedSettings("sync", Limits(), 1.0, 60.0)

        async def on_disk(repository: Repository) -> None:
            await FolderSyncs().sync(repository.path)

        housekeeping = Housekeeping(room.store, room.processes)

        def make_changes(term: Term) -> TermChanges:
            feed = Feed(
                term, B, room.store, room.refs, settings, on_disk, NoJournal(),
                profile=Profile, reach=no_peers,
            )  # fmt: skip
            return TermChanges(feed, room.store, housekeeping, record=term, unconfirmed=Unconfirmed())

        self.lifecycle = Lifecycle(
            Config.model_validate({"election": {"handover_wait_s": 0.2, "drain_s": 2.0}}),
            elector,
            self.leadership,
            NobodyToFollow(room.store.root),
            self.lock,
            address=FloatingAddress(B.name, ()),
            clients=NoClients(),
            led=self.led,
            make_changes=make_changes,
            mode="sync",
            data_dir_failing=lambda: self.failing_s,
            on_leading=self._leading,
        )

    def _leading(self, term: int) -> None:
        self.terms.append(term)
        self.leading.set()


@pytest.fixture
async def candidate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Candidate]:
    monkeypatch.setattr(lifecycle_module, "AGAIN_BACKOFF", Backoff(0.05, 0.1, lambda: 0.0))
    lock = tmp_path / "leader.lock"
    bootstrap(lock, state_of(tmp_path, "a"), A)
    async with node(tmp_path, "a", lock) as a:
        a.start()
        await a.leads()
        await a.term.update(sync_set=[B])
    async with node(tmp_path, "b", lock, mode="sync") as b, open_room(tmp_path / "data") as room:
        yield Candidate(room, b.elector)


@contextlib.asynccontextmanager
async def running(candidate: Candidate) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(candidate.lifecycle.run())
    yield task
    candidate.lifecycle.stop()
    async with asyncio.timeout(LIMIT_S):
        await task


async def leads(candidate: Candidate, task: "asyncio.Task[None]") -> None:
    """Wait until it does; the lifecycle must not have ended."""
    leading = asyncio.create_task(candidate.leading.wait())
    async with asyncio.timeout(LIMIT_S):
        await asyncio.wait({task, leading}, return_when=asyncio.FIRST_COMPLETED)
    assert leading.done(), task


async def test_a_failed_write_of_the_record_is_tried_again_with_a_new_term(
    candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it opens, the new leader takes the former one out of the record. The volume is full just then.

    The node goes on living, says so loudly, stands aside for a moment, and leads in the end.
    """
    real, tries = FlockHandle.write, []

    async def write(handle: FlockHandle, record: ClusterRecord) -> None:
        tries.append(record)
        if len(tries) == 1:
            assert not candidate.leadership.view().accepting
            raise ElectionUnavailableError("the volume is full")
        await real(handle, record)

    monkeypatch.setattr(FlockHandle, "write", write)
    with capture_logs() as logs:
        async with running(candidate) as task:
            await leads(candidate, task)
            assert candidate.terms == [3]
            assert candidate.leadership.view().accepting
    assert tries[0].term == 2
    loud = [line for line in logs if line["event"] == "term_not_opened"]
    assert [(line["log_level"], line["tries"]) for line in loud] == [("error", 1)]
    assert "the volume is full" in loud[0]["reason"]
    aside = [line["reason"] for line in logs if line["event"] == "election_standby"]
    assert any("could not open its term: the volume is full" in reason for reason in aside)


async def test_a_leading_lock_that_cannot_be_had_is_tried_again(
    candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody holds it for longer than hooks do."""
    real, tries = LeadingLock.acquire, []

    async def acquire(lock: LeadingLock, limit_s: float) -> str:
        tries.append(limit_s)
        if len(tries) == 1:
            raise UnavailableError("the leading lock could not be had within 5 s")
        if len(tries) == 2:
            raise PermissionError(13, "Permission denied")
        return await real(lock, limit_s)

    monkeypatch.setattr(LeadingLock, "acquire", acquire)
    async with running(candidate) as task:
        await leads(candidate, task)
    assert candidate.terms == [4]


async def test_a_single_node_puts_on_disk_what_a_crash_has_left_before_it_leads(
    candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repeated push is "up-to-date", and that is an acknowledgement. The disk fails at the first try."""
    real, led = lifecycle_module.sync_everything, []

    def sync_everything(top: Path) -> None:
        led.append(list(candidate.terms))
        assert top == candidate.repositories
        if len(led) == 1:
            raise OSError(errno.EIO, "Input/output error")
        real(top)

    monkeypatch.setattr(lifecycle_module, "sync_everything", sync_everything)
    with capture_logs() as logs:
        async with running(candidate) as task:
            await leads(candidate, task)
    assert led == [[], []]
    refused = [line["error"] for line in logs if line["event"] == "leadership_not_taken"]
    assert refused == ["the repositories cannot be put on disk: [Errno 5] Input/output error"]


async def test_a_push_that_waits_goes_on_if_the_same_node_leads_again(
    candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node steps down since its disk fails, nobody else takes over, and the disk works again."""
    leadership, closed, waits = candidate.leadership, asyncio.Event(), asyncio.Event()

    async def caught_up(_feed: Feed, limit_s: float) -> Member | None:
        closed.set()
        await waits.wait()

    monkeypatch.setattr(Feed, "standbys", lambda _: [StandbyStatus("c", True, 0, 0.0)])
    monkeypatch.setattr(Feed, "caught_up", caught_up)
    async with running(candidate) as task, asyncio.timeout(LIMIT_S):
        await leads(candidate, task)
        candidate.leading.clear()
        candidate.failing_s = 60.0
        await closed.wait()
        assert not leadership.view().accepting
        assert leadership.view().stepping_down
        push = asyncio.create_task(leadership.wait_decided(LIMIT_S))
        while not leadership.waiting:
            await asyncio.sleep(0)
        candidate.failing_s = 0.0
        waits.set()
        assert (await push).accepting
    assert candidate.terms == [2, 3]


async def test_a_mirror_that_fails_is_in_the_log_and_tried_again(
    candidate: Candidate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in following ends neither the node nor its part in the election."""
    monkeypatch.setattr(lifecycle_module, "FOLLOW_AGAIN_S", 0.01, raising=False)
    again = asyncio.Event()

    class Fails(NobodyToFollow):
        tries = 0

        async def follow(self, record: ClusterRecord) -> None:
            self.tries += 1
            if self.tries == 1:
                raise KeyError("a bug")
            again.set()
            await asyncio.Event().wait()

    candidate.lifecycle._mirror = Fails(candidate.repositories)
    async with node(tmp_path, "a", tmp_path / "leader.lock") as a:
        a.start()
        await a.leads()
        with capture_logs() as logs:
            async with running(candidate), asyncio.timeout(LIMIT_S):
                await again.wait()
    failed = [(line["log_level"], line["error"]) for line in logs if line["event"] == "mirror_failed"]
    assert failed == [("error", "KeyError('a bug')")]
