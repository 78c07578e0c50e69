"""Many clients at the same time: nothing is lost, nothing is applied twice, everybody gets through."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.kv import Kv
from tests.support.ledger import audit

CLIENTS = 4
ROUNDS = 4
PATIENCE = "5m"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("shared", [False, True], ids=["clones of their own", "one clone for all"])
def test_writers_of_different_keys_all_get_through(
    new_client: Callable[..., Kv], served: Path, *, shared: bool
) -> None:
    """Every one of them has to begin again when another was faster, and does so by itself."""
    one = new_client()
    clients = [one if shared else new_client() for _ in range(CLIENTS)]

    def write(number: int) -> list[str]:
        txns = []
        for turn in range(ROUNDS):
            key, value = f"client:{number}:{turn}", f"{number} {turn}"
            written = clients[number].json("set", key, value, "--timeout", PATIENCE)
            txns.append(written["txn"])
            assert clients[number].ok("get", key) == value.encode(), "whoever wrote does not read it"
        return txns

    with ThreadPoolExecutor(CLIENTS) as pool:
        txns = [txn for found in pool.map(write, range(CLIENTS)) for txn in found]
    found = audit(served)
    assert sorted(found.txns) == sorted(txns)
    assert found.values == {
        f"client:{number}:{turn}": f"{number} {turn}".encode()
        for number in range(CLIENTS)
        for turn in range(ROUNDS)
    }


@pytest.mark.timeout(600)
def test_a_counter_loses_no_count(new_client: Callable[..., Kv], served: Path) -> None:
    """With --expect, a read and a write are one step: who was overtaken gets 2 and has written nothing."""
    clients = [new_client() for _ in range(CLIENTS)]
    first = clients[0]
    first.ok("set", "counter", "0")

    def count(kv: Kv) -> int:
        conflicts = done = 0
        while done < ROUNDS:
            value = kv.json("get", "counter")
            ended = kv.run(
                "set",
                "counter",
                str(int(value["value"]) + 1),
                "--expect",
                value["oid"],
                "--timeout",
                PATIENCE,
            )
            assert ended.returncode in {0, 2}, ended
            conflicts += ended.returncode == 2
            done += ended.returncode == 0
        return conflicts

    with ThreadPoolExecutor(CLIENTS) as pool:
        conflicts = sum(pool.map(count, clients))
    assert first.ok("get", "counter") == str(CLIENTS * ROUNDS).encode()
    assert len(audit(served).txns) == CLIENTS * ROUNDS + 1
    assert conflicts, "nobody was in anybody's way: this shows nothing"


def test_only_one_of_many_takes_a_lock(new_client: Callable[..., Kv], served: Path) -> None:
    """`--expect absent`; and a lock that has expired can be taken again."""
    clients = [new_client() for _ in range(CLIENTS)]

    def take(number: int) -> int:
        ended = clients[number].run(
            "set", "lock", str(number), "--expect", "absent", "--ttl", "1h", "--timeout", PATIENCE
        )
        return ended.returncode

    with ThreadPoolExecutor(CLIENTS) as pool:
        statuses = list(pool.map(take, range(CLIENTS)))
    assert sorted(statuses) == [0, *[2] * (CLIENTS - 1)]
    assert clients[0].ok("get", "lock") == str(statuses.index(0)).encode()
    clients[1].ok("set", "lock", "short", "--ttl", "0.001s")
    clients[2].ok("set", "lock", "next", "--expect", "absent")
    assert (
        clients[3]
        .fails(2, "set", "lock", "x", "--expect", "absent")
        .startswith("conflict: lock was expected")
    )


def test_a_batch_and_single_writers_do_not_mix(new_client: Callable[..., Kv], served: Path) -> None:
    """A reader never sees half of a batch: each transaction sets two keys to the same value."""
    clients = [new_client() for _ in range(3)]

    def write(number: int) -> None:
        for turn in range(ROUNDS):
            lines = [{"op": "set", "key": key, "value": f"{number}.{turn}"} for key in ("left", "right")]
            given = "\n".join(map(json.dumps, lines)).encode()
            clients[number].ok("mset", "--file", "-", "--timeout", PATIENCE, given=given)

    def read() -> None:
        for _ in range(ROUNDS):
            ended = clients[2].run("list", "--json")
            assert ended.returncode == 0, ended
            assert len({key["oid"] for key in json.loads(ended.stdout)}) <= 1

    with ThreadPoolExecutor(3) as pool:
        for running in [pool.submit(write, 0), pool.submit(write, 1), pool.submit(read)]:
            running.result()
    found = audit(served)
    assert found.values["left"] == found.values["right"]
    assert len(found.txns) == 2 * ROUNDS
