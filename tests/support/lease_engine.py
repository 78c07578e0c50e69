"""A second engine, in memory: a lease with a time to live and a record that is compared and set.

It shows that the port fits a distributed store such as etcd, and is the reference in the conformance
suite. Not for anything but tests.
"""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from stargate_gate.election.port import ClusterRecord
from stargate_gate.errors import ElectionUnavailableError, LeadershipLostError


@dataclass
class LeaseStore:
    """What all nodes share. A lease that is not kept alive for `ttl_s` is free for the next."""

    record: ClusterRecord
    clock: Callable[[], float]
    ttl_s: float = 10.0
    reachable: bool = True
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    leases: "itertools.count[int]" = field(default_factory=itertools.count)
    lease: int | None = None
    expires_at: float = 0.0

    def __post_init__(self) -> None:
        self.answering.set()

    async def ask(self) -> None:
        """One round trip."""
        await self.answering.wait()
        await asyncio.sleep(0)
        if not self.reachable:
            raise ElectionUnavailableError("the store is out of reach: check the network")

    def holds(self, lease: int) -> bool:
        return self.lease == lease and self.clock() < self.expires_at


class LeaseEngine:
    """`port.Engine` over a `LeaseStore`."""

    place = "the lease store"

    def __init__(self, store: LeaseStore) -> None:
        self._store = store

    async def read(self) -> ClusterRecord:
        await self._store.ask()
        return self._store.record

    async def try_acquire(self) -> "StoreHandle | None":
        store = self._store
        await store.ask()
        if store.lease is not None and store.holds(store.lease):
            return None
        store.lease = next(store.leases)
        store.expires_at = store.clock() + store.ttl_s
        return StoreHandle(store, store.lease)

    async def close(self) -> None:
        """Nothing to give back."""


class StoreHandle:
    """`port.LeaseHandle`: a lease. A write is a transaction: I hold the lease, the record is as I know it."""

    def __init__(self, store: LeaseStore, lease: int) -> None:
        self._store = store
        self._lease = lease
        self._released = False

    async def read(self) -> ClusterRecord:
        await self._held()
        return self._store.record

    async def claim(self, record: ClusterRecord, *, former: ClusterRecord) -> ClusterRecord:
        await self._held()
        if self._store.record != former:
            raise LeadershipLostError("the cluster record changed before the claim")
        self._store.record = replace(record, term=max(record.term, former.term + 1), version=1)
        return self._store.record

    async def write(self, record: ClusterRecord) -> None:
        await self._held()
        if self._store.record.term != record.term:
            raise LeadershipLostError(f"term {self._store.record.term} is there")
        self._store.record = record

    async def prove(self) -> None:
        await self._held()
        self._store.expires_at = self._store.clock() + self._store.ttl_s

    async def release(self) -> None:
        self._released = True
        if self._store.lease == self._lease:
            self._store.lease = None

    async def _held(self) -> None:
        await self._store.ask()
        if self._released or not self._store.holds(self._lease):
            raise LeadershipLostError("the lease is gone")
