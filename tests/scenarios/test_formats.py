"""Data of version 0.1 is read; what a newer version has written is refused with words, and stays as it is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stargate_gate.election.flock.slots import SLOT_BYTES, newest_format
from stargate_gate.formats import (
    CLUSTER_RECORD,
    ELECTION,
    IN_STEP,
    INTENT,
    JOURNAL,
    LAYOUT,
    READY,
    RESCUED,
    RUNNING,
    SCRUB,
    WRITER,
    Format,
)
from tests.support.cluster import Cluster, NodeProcess, eventually
from tests.support.nodelog import complete_log

Make = Callable[..., Cluster]
OLD = Path(__file__).parents[1] / "data" / "0.1"
ID = "a" * 32

# What a node reads at its start. The trash is in tests/repos/test_trash_formats.py.
AT_START = (LAYOUT, ELECTION, JOURNAL, INTENT, RESCUED, IN_STEP, SCRUB, RUNNING, WRITER, READY)
LINES = (JOURNAL, INTENT, SCRUB)


@pytest.fixture
def old(unstarted: Make) -> Cluster:
    """A cluster that version 0.1 has bootstrapped; nothing runs."""
    cluster = unstarted(nodes=1)
    node = cluster.nodes[0]
    shutil.copytree(OLD / "data_dir", node.data_dir)
    shutil.copyfile(OLD / "bootstrapped.lock", cluster.lock_path)
    for path in node.data_dir.rglob("*.git"):  # git keeps no empty folders
        for folder in ("objects", "refs/heads"):
            (path / folder).mkdir(parents=True, exist_ok=True)
    return cluster


def test_a_data_dir_and_a_lock_of_version_0_1_are_used(old: Cluster) -> None:
    """The node leads, serves what is there, and keeps what was rescued and deleted."""
    node = old.nodes[0]
    node.start().wait_ready()
    names = old.client.ssh(node, "repo list").stdout.split()
    assert names == [b"half", b"org/app"]  # `half` was complete, and is put into its place
    listed = old.client.git("ls-remote", old.client.url(node, "org/app")).stdout
    refs = [line.partition("\t")[2] for line in listed.splitlines()]
    assert refs == ["HEAD", "refs/heads/a/b", "refs/heads/c", "refs/heads/main"]  # the intent was completed
    status = node.status()
    assert (status["term"], status["rescued_refs"]) == (1, 1)
    (entry,) = (node.data_dir / "trash").iterdir()
    assert (entry / "gone.git" / "HEAD").is_file()
    said = complete_log(node)
    for word in (
        "journal_damaged",
        "journal_missing",
        "intent_damaged",
        "rescued_damaged",
        "in_step_not_read",
    ):
        assert word not in said
    tree = old.client.work_tree("more")
    old.client.git("push", "-q", old.client.url(node, "more"), "main", cwd=tree)
    assert node.terminate() == 0
    for kind in (LAYOUT, ELECTION):
        assert json.loads((node.data_dir / kind.where).read_text())["format"] == kind.number
    assert (node.data_dir / JOURNAL.where).read_bytes().startswith(JOURNAL.header)


def test_what_a_newer_version_has_written_is_refused(old: Cluster) -> None:
    """Exit 78 and a line: which file, which format, what to do. The file stays as it is."""
    node = old.nodes[0]
    for kind in AT_START:
        path = node.data_dir / place_of(kind)
        before = path.read_bytes() if path.exists() else None
        newer = newer_content(kind, before)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(newer)
        refuses(node, str(path), f"has format {kind.number + 1}", "update stargate on this node")
        assert path.read_bytes() == newer, kind.name
        if before is None:
            path.unlink()
        else:
            path.write_bytes(before)
    node.start().wait_ready()


def test_a_lock_of_a_newer_version_is_refused(old: Cluster) -> None:
    """The node starts and reads go on; it does not lead, says why, and writes nothing into the file."""
    node, path = old.nodes[0], old.lock_path
    content = bytearray(path.read_bytes())
    newer = content[:SLOT_BYTES].replace(b"format 1;", b"format 2;")
    content[2 * SLOT_BYTES : 3 * SLOT_BYTES] = newer  # one slot is enough: it may have a larger term
    path.write_bytes(content)
    assert newest_format(bytes(content)) == CLUSTER_RECORD.number + 1
    node.start()
    eventually(lambda: "has format 2" in node.status().get("reason", ""), "the reason in /status")
    reason = node.status()["reason"]
    assert f"the leader lock {path}" in reason
    assert "update stargate on this node" in reason
    assert not node.ready()
    assert "main" in old.client.git("ls-remote", old.client.url(node, "org/app")).stdout
    assert path.read_bytes() == content


def test_a_leader_stops_when_the_lock_gets_a_newer_format(old: Cluster) -> None:
    """As if a newer node took over while this one was frozen: it cannot read the larger term, and stops."""
    node, path = old.nodes[0], old.lock_path
    node.start().wait_ready()
    with path.open("r+b") as file:
        file.seek(4 * SLOT_BYTES)
        file.write(b"stargate cluster record, format 2; with a larger term, perhaps")
    eventually(lambda: not node.ready(), "that it stops")
    eventually(lambda: "has format 2" in node.status().get("reason", ""), "the reason in /status")
    tree = old.client.work_tree("late")
    push = old.client.git("push", old.client.url(node, "late"), "main", cwd=tree, ok=False)
    assert "not leader" in push.stderr


def place_of(kind: Format) -> str:
    """A path below the data_dir that the sample has, or could have."""
    place = kind.where.replace("<repository id>", "c" * 32 if kind is READY else ID)
    return place.replace("<random>", "0123456789abcdef")


def newer_content(kind: Format, before: bytes | None) -> bytes:
    """As the next format would begin; what follows is nothing that this version knows."""
    number = kind.number + 1
    if kind in LINES:
        return f"stargate {kind.name}, format {number}\nwhatever it is\n".encode()
    value: dict[str, Any] = json.loads(before) if before else {}
    return json.dumps({**value, "format": number, "unknown": True}).encode()


def refuses(node: NodeProcess, *words: str) -> None:
    """The node ends by itself with 78, and its last line has all of `words`."""
    before = len(node.log())
    assert node.start().wait() == 78, node.log()
    line = node.log()[before:].splitlines()[-1]
    assert [word for word in words if word not in line] == [], line
