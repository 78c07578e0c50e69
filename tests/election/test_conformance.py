"""Every engine passes the same suite."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stargate_gate.election.flock.bootstrap import bootstrap
from stargate_gate.election.flock.engine import FlockEngine, FlockHandle
from stargate_gate.election.lease import boottime
from stargate_gate.election.port import ClusterRecord, Engine, LeaseHandle
from tests.election.conformance import A, Cluster, EngineConformance
from tests.support.elections import lose_lock, member, state_of
from tests.support.lease_engine import LeaseEngine, LeaseStore


class FlockCluster(Cluster):
    """Three nodes on one real file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._engines: dict[str, FlockEngine] = {}
        bootstrap(folder / "leader.lock", state_of(folder, "a"), member("a"))

    def engine(self, name: str) -> Engine:
        if name not in self._engines:
            self._engines[name] = FlockEngine(
                self._folder / "leader.lock", state_of(self._folder, name), lease_s=5
            )
        return self._engines[name]

    def lose(self, handle: LeaseHandle) -> None:
        assert isinstance(handle, FlockHandle)
        lose_lock(handle)

    async def close(self) -> None:
        for engine in self._engines.values():
            await engine.close()


class LeaseCluster(Cluster):
    """Three nodes on one store in memory."""

    def __init__(self) -> None:
        self._store = LeaseStore(ClusterRecord("cluster", 0, 1, A), boottime)
        self._engine = LeaseEngine(self._store)

    def engine(self, name: str) -> Engine:
        return self._engine

    def lose(self, handle: LeaseHandle) -> None:
        self._store.expires_at = 0.0

    async def close(self) -> None:
        await self._engine.close()


class TestFlock(EngineConformance):
    """The embedded engine."""

    @pytest.fixture
    async def cluster(self, tmp_path: Path) -> AsyncIterator[Cluster]:
        cluster = FlockCluster(tmp_path)
        yield cluster
        await cluster.close()


class TestLease(EngineConformance):
    """The reference engine."""

    @pytest.fixture
    async def cluster(self) -> AsyncIterator[Cluster]:
        cluster = LeaseCluster()
        yield cluster
        await cluster.close()
