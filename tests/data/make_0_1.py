"""Wrote tests/data/0.1, once, with the code of commit c80bc8a: what version 0.1 left on disks.

    git archive c80bc8a stargate_gate hooks | tar -x -C OLD
    PYTHONPATH=OLD .venv/bin/python tests/data/make_0_1.py OUT

It imports modules that only that commit has. The lock files are those of a cluster that was bootstrapped, and
of one that has had three leaders.
"""
# mypy: ignore-errors

import asyncio
import shutil
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from stargate_gate.election.bootstrap import bootstrap
from stargate_gate.election.identity import ElectionState
from stargate_gate.replication.instep import Equality, InStep
from stargate_gate.replication.intent import Intent
from stargate_gate.replication.intents import Intents
from stargate_gate.replication.journal import Journal
from stargate_gate.replication.rescues import Rescues
from stargate_gate.repos.beside import mark_complete

from stargate_gate.datadir.layout import keep_name, open_data_dir
from stargate_gate.datadir.procs import ProcessId
from stargate_gate.datadir.writers import WriterRecord, WritersLock
from stargate_gate.election.flock import FlockEngine
from stargate_gate.election.port import Member
from stargate_gate.replication.rescue import Rescued, Value
from stargate_gate.repos.hooks import install_hooks
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.plan import RefChange
from stargate_gate.repos.process import GitProcesses
from stargate_gate.repos.store import Store

OLD = "1" * 40
APP, GONE, HALF = "a" * 32, "b" * 32, "c" * 32


async def data_dir(root: Path) -> None:
    """One file of each kind, in the data_dir of node-a."""
    datadir = open_data_dir(root)
    keep_name(datadir, "node-a", is_host_name=False)
    install_hooks(datadir)

    async def nothing(_paths) -> None:
        """Nothing to sweep."""

    async with AsyncExitStack() as stack:
        writers = await WritersLock.open_exclusively_then_share(datadir, nothing)
        stack.callback(writers.close)
        processes = GitProcesses(datadir, writers)
        stack.push_async_callback(processes.end_all)
        store = Store(datadir, processes, default_branch="main", trash_days=7)
        app = await store.create(RepositoryName("org/app"), id=APP)
        empty = await processes.run(
            ["git", "-C", str(app.path), "hash-object", "-w", "-t", "tree", "--stdin"], limit_s=9, input=b""
        )
        person = "T <t@example.com> 1700000000 +0000"
        text = f"tree {empty.decode().strip()}\nauthor {person}\ncommitter {person}\n\nwritten by 0.1\n"
        commit = await processes.run(
            ["git", "-C", str(app.path), "hash-object", "-w", "-t", "commit", "--stdin"],
            limit_s=9,
            input=text.encode(),
        )
        oid = commit.decode().strip()
        await processes.run(["git", "-C", str(app.path), "update-ref", "refs/heads/main", oid], limit_s=9)
        await store.create(RepositoryName("gone"), id=GONE)
        await store.delete(RepositoryName("gone"))
        half = await store.begin(RepositoryName("half"), HALF, object_format="sha1", head=None)
        mark_complete(half.path, half.name)

    state = datadir.state
    journal = Journal.open(state / "unreplicated.log", has_repositories=False)
    await journal.mark(1, 3, APP, "org/app", ["refs/heads/main"])
    await journal.mark(2, 0, APP, "org/app", None)
    journal.forced(2)
    await journal.close()
    changes = ((RefChange("refs/heads/a/b", None, oid),), (RefChange("refs/heads/c", None, oid),))
    await Intents(state / "intents").put(Intent(APP, "org/app", changes, "ref: refs/heads/main"))
    value = Rescued(Value("refs/heads/main", OLD, 1), "node-b", 2, "2026-11-27T10:00:00+00:00")
    await Rescues.open(state / "rescued").add(APP, "org/app", [value], in_trash=False)
    in_step = InStep(state / "in_step.json")
    in_step.note(Equality(2, 7, 1_700_000_000))
    await in_step.flush()
    record = WriterRecord(root / "repositories/org/app.git", ProcessId(4_000_000, 123, "another-boot"))
    (datadir.writers / "0123456789abcdef").write_bytes(record.encode())


def forced_about(root: Path) -> None:
    """The trash's time is now; a sample has one that stays."""
    entry = next((root / "trash").iterdir())
    stamp = datetime(2026, 11, 27, 10, tzinfo=UTC)
    about = (entry / "about.json").read_text()
    start = about.index('"deleted_at": "') + len('"deleted_at": "')
    end = about.index('"', start)
    (entry / "about.json").write_text(about[:start] + stamp.isoformat() + about[end:])
    entry.rename(entry.with_name(f"20261127T100000.000000Z-{GONE}"))


async def terms(path: Path, state: ElectionState, me: Member, other: Member) -> None:
    """Three leaderships, one after the other."""
    for leader, members in ((me, (other,)), (other, (me,)), (me, (other,))):
        engine = FlockEngine(path, state, lease_s=5)
        hold = await engine.try_acquire()
        former = await hold.read()
        wanted = replace(former, term=former.term + 1, version=1, leader=leader, sync_set=members)
        first = await hold.claim(wanted, former=former)
        changed = replace(first, version=2, position=7, ssh="127.0.0.1:2222", http="127.0.0.1:8080")
        await hold.write(changed)
        await hold.release()
        await engine.close()


async def main(out: Path) -> None:
    """Write everything below `out`."""
    out.mkdir(parents=True)
    root = out / "data_dir"
    await data_dir(root)
    me = Member("node-a", (root / "state/data_dir_id").read_text().strip())
    bootstrap(out / "bootstrapped.lock", ElectionState(root / "state/election.json"), me)
    shutil.copy(out / "bootstrapped.lock", out / "term-3.lock")
    with tempfile.TemporaryDirectory() as scratch:
        state = ElectionState(Path(scratch) / "election.json")
        await terms(out / "term-3.lock", state, me, Member("node-b", "d" * 32))
    forced_about(root)
    shutil.rmtree(root / "hooks")
    (root / "state/seal_key").unlink()  # a secret; without it every config is looked at again
    for name in ("node.lock", "writers.lock", "leading.lock", "boot_id"):
        (root / "run" / name).unlink(missing_ok=True)


asyncio.run(main(Path(sys.argv[1])))
