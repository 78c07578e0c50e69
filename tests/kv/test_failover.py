"""The leader is killed ten times while writers run `git kv set` in a loop: failover is invisible to them."""

import json
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, eventually, running_cluster
from tests.support.kv import Kv, make_clone
from tests.support.ledger import audit

WRITERS = 3
KILLS = 10
TIMEOUT_S = 120  # of each command; these machines are noisy, and a node needs seconds to start on them
QUICK = {"heartbeat_s": 0.5, "watchdog_s": 2, "lease_s": 3, "drain_s": 3, "handover_wait_s": 3}


class Writer:
    """Counts in a key of its own, and reads its writes, until told to stop."""

    def __init__(self, kv: Kv, key: str, stop: threading.Event) -> None:
        self.key = key
        self.txns: list[str] = []  # of commands that exited 0
        self.failed: list[object] = []
        self._kv = kv
        self._stop = stop
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for the command that runs; every command has to have succeeded."""
        self._thread.join(2 * TIMEOUT_S + 60)
        assert not self._thread.is_alive(), f"{self.key} does not end"
        assert not self.failed, self.failed

    def _run(self) -> None:
        while not self._stop.is_set() and not self.failed:
            value = str(len(self.txns))
            written = self._command("--json", "set", self.key, value)
            if written is not None:
                self.txns.append(json.loads(written)["txn"])
                read = self._command("get", self.key)
                if read != value.encode():
                    self.failed.append(f"{self.key} is {read!r}, set was {value}")

    def _command(self, *args: str) -> bytes | None:
        try:
            done = self._kv.run(*args, "--timeout", f"{TIMEOUT_S}s", limit_s=TIMEOUT_S + 30)
        except subprocess.TimeoutExpired as error:
            done = subprocess.CompletedProcess(error.cmd, -9, error.stdout or b"", error.stderr or b"")
        if done.returncode or done.stderr:
            self.failed.append(done)
            return None
        return done.stdout


@pytest.mark.timeout(900)
def test_writers_do_not_notice_that_the_leader_was_killed_ten_times(tmp_path: Path) -> None:
    """Every command exits 0; what it wrote is there, once; nobody had to do anything."""
    stop = threading.Event()
    with running_cluster(tmp_path / "cluster", overrides={"election": QUICK}) as cluster:
        urls = [cluster.client.url(node, "state") for node in cluster.nodes]
        writers = [
            Writer(
                make_clone(tmp_path / f"writer-{number}", *urls, env=cluster.client.environment()),
                f"writer:{number}",
                stop,
            )
            for number in range(WRITERS)
        ]
        try:
            killed = [_kill_leader(cluster, writers, number) for number in range(KILLS)]
        finally:
            stop.set()
        for writer in writers:
            writer.join()
        contents = cluster.wait_equal()
        assert "state.git" in contents
        assert len(set(killed)) == len(cluster.nodes), "every node should have been killed"
        _check(cluster, writers)


def _kill_leader(cluster: Cluster, writers: list[Writer], number: int) -> str:
    """Somewhere in the middle of what the writers do; returns when the other node is in sync again."""
    before = [len(writer.txns) for writer in writers]

    def everybody_wrote() -> bool:
        assert not any(writer.failed for writer in writers), [writer.failed for writer in writers]
        return all(len(writer.txns) > count for writer, count in zip(writers, before, strict=True))

    eventually(everybody_wrote, "a write of each writer", TIMEOUT_S)
    leader = cluster.leader(TIMEOUT_S)
    other = next(node for node in cluster.nodes if node is not leader)
    leader.wait_in_sync_set(other.name)
    time.sleep(0.05 * number)  # the moment itself: nothing is waited for
    leader.kill()
    other.wait_ready(TIMEOUT_S)
    leader.start()
    other.wait_in_sync_set(leader.name)
    return leader.name


def _check(cluster: Cluster, writers: list[Writer]) -> None:
    for node in cluster.nodes:
        found = audit(node.repository("state"))
        for writer in writers:
            assert set(writer.txns) <= set(found.txns), "an acknowledged transaction is missing"
            assert found.values[writer.key] == str(len(writer.txns) - 1).encode()
        written = sum(len(writer.txns) for writer in writers)
        assert len(found.txns) == written, "a transaction was applied twice, or without being acknowledged"
    assert written > KILLS * WRITERS
