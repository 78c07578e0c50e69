"""A standby with the cluster's key that speaks the feed wrongly, while a good standby and pushes go on."""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stargate_gate.config.endpoint import Endpoint
from stargate_gate.replication.peer.connection import Credentials, Peer
from stargate_gate.replication.wire.messages import PROTOCOL
from tests.faults.conftest import MakeCluster
from tests.support.cluster import Cluster, NodeProcess
from tests.support.nodelog import complete_log, wait_logged

HUGE = 10**60
LIMIT_S = 60.0
ID = "f" * 32


def line(kind: str, **fields: Any) -> bytes:
    return json.dumps({"v": PROTOCOL, "type": kind, **fields}).encode() + b"\n"


def join(name: str = "node-x", **fields: Any) -> bytes:
    return line("join", protocol=PROTOCOL, member=[name, f"dir-{name}"], instance="1", **fields)


def lies(term: int) -> Iterator[bytes]:
    """What is said after the first line; each of it ends the connection."""
    yield join()  # twice on one connection
    yield line("alive", term=term + 1, position=1)
    yield line("alive", term=term, position=HUGE)
    yield line("applied", term=term, seq=HUGE, id=ID)
    yield line("checked", term=term, check=0)
    yield line("checked", term=term, check=HUGE)
    yield line("heartbeat", term=term, seq=1, replicated=1, at=0)  # the leader's word
    yield line("alive", term=term, position=-1)
    yield b'{"type":"alive","term":' + b"9" * 5000 + b"}\n"
    yield b"[" * 100_000 + b"\n"
    yield b"\xff\xfe\n"
    yield b"\n"


class Fake:
    """A connection to the leader that introduced itself, or did not."""

    def __init__(self, cluster: Cluster, leader: NodeProcess) -> None:
        config = leader.config
        key, host_keys = config["cluster"]["key"], config["ssh"]["host_keys"]
        self._credentials = Credentials.load(Path(key), [Path(one) for one in host_keys])
        self._port = leader.ssh_port

    async def say(self, *words: bytes) -> int:
        """Say this, and read until the leader ends it; how many bytes came."""
        peer = await Peer.connect(Endpoint("127.0.0.1", self._port), self._credentials)
        try:
            channel = await peer.open("stargate-feed")
            for word in words:
                await channel.write(word)
            count = 0
            while data := await channel.read(65536):
                count += len(data)
            return count
        finally:
            await peer.close()

    async def never_read(self, term: int) -> None:
        """Join, say something now and then, read nothing; until cancelled."""
        peer = await Peer.connect(Endpoint("127.0.0.1", self._port), self._credentials)
        try:
            channel = await peer.open("stargate-feed")
            await channel.write(join("node-z"))
            while True:
                await channel.write(line("applied", term=term, seq=1, id=ID))
                await asyncio.sleep(0.2)
        finally:
            await peer.close()


@pytest.mark.timeout(300)
async def test_lies_end_the_connection_of_the_liar_only(make: MakeCluster) -> None:
    """Every push is acknowledged, the good standby stays in the sync set, and nothing failed."""
    cluster = await asyncio.to_thread(make(nodes=2).start)
    a, client = cluster["node-a"], cluster.client
    tree = await asyncio.to_thread(client.work_tree, "app")
    await asyncio.to_thread(a.wait_in_sync_set, "node-b")
    connected = len(await asyncio.to_thread(wait_logged, a, "standby_connected"))
    term = a.status()["term"]
    fake = Fake(cluster, a)

    async def push(text: str) -> None:
        await asyncio.to_thread(client.commit, tree, text)
        await asyncio.to_thread(client.git, "push", "-q", client.url(a, "org/app"), "HEAD:main", cwd=tree)

    silent = asyncio.create_task(fake.never_read(term))
    said = 0
    for lie in lies(term):
        async with asyncio.timeout(LIMIT_S):
            with contextlib.suppress(ConnectionError):  # ended before all of it was said
                await fake.say(join(), lie)
        said += 1
    async with asyncio.timeout(LIMIT_S):
        await asyncio.gather(
            *(fake.say(join(), line("alive", term=0, position=0)) for _ in range(4)), push("one")
        )
    await push("two")
    silent.cancel()
    await asyncio.wait({silent})
    await asyncio.to_thread(wait_logged, a, "standby_connected", connected + said)
    log = await asyncio.to_thread(complete_log, a)
    assert a.status()["sync_set"] == ["node-b"]
    disconnected = [json.loads(one) for one in log.splitlines() if '"standby_disconnected"' in one]
    assert "node-b" not in {one["standby"] for one in disconnected}
    assert "Traceback" not in log
    assert "standby_failed" not in log
