"""What `status` says when something is wrong: the truth, and the same on both nodes."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import STARGATE, Cluster, NodeProcess, eventually, free_port, make_cluster
from tests.support.gitlog import GitLog
from tests.support.small_disk import small_disk

Make = Callable[..., Cluster]


def status_of(node: NodeProcess, *options: str) -> subprocess.CompletedProcess[str]:
    """`stargate status` on the machine of that node."""
    return subprocess.run(
        [*STARGATE, "status", "-c", str(node.config_file), *options],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def flat(text: str) -> str:
    """Without the line breaks of a page of 80 columns."""
    return " ".join(text.split())


def kinds(node: NodeProcess) -> set[str]:
    """Of what the node is concerned about."""
    return {one["kind"] for one in node.status().get("concerns", ())}


def started(cluster: Cluster) -> tuple[NodeProcess, NodeProcess]:
    """Both nodes of it, without waiting for the pair to be one."""
    assert cluster.bootstrap().returncode == 0
    a, b = cluster.nodes
    a.start().wait_ready()
    b.start().wait_healthy()
    return a, b


def advertise(node: NodeProcess, where: str) -> None:
    """Let the node say that it is reached there."""
    node.config["ssh"]["advertise"] = where


# -- a standby that nobody could follow if it led ----------------------------------------------------------


def stays_out(a: NodeProcess, b: NodeProcess, *words: str) -> None:
    """The standby is not a member, though it has everything; both nodes name the cause."""

    def named(node: NodeProcess) -> bool:
        texts = [one["text"] for one in node.status().get("concerns", ()) if one["kind"] == "not_reached"]
        return any("not in sync" in text and all(word in text for word in words) for text in texts)

    eventually(lambda: named(a) and named(b), f"both nodes say that it is not in sync: {words}")
    eventually(lambda: b.status()["mirror"]["level"], "the standby has everything")
    assert a.status()["sync_set"] == []
    assert status_of(a).returncode == 2, "the sync set is empty"
    assert status_of(b).returncode == 1
    assert "all is well" not in status_of(a).stdout + status_of(b).stdout


def test_a_standby_whose_advertised_name_is_unknown_does_not_join(unstarted: Make) -> None:
    """It replicates, since it dials out; but nobody could follow it."""
    cluster = unstarted()
    advertise(cluster.nodes[1], "node-b.invalid:2222")
    a, b = started(cluster)
    stays_out(a, b, "node-a cannot reach node-b", "node-b.invalid:2222", "name", "ssh.advertise")
    tree = cluster.client.work_tree("app")
    cluster.client.git("push", "-q", cluster.client.url(a, "org/app"), "main", cwd=tree)
    cluster.wait_equal()


def test_a_standby_that_advertises_the_other_node_does_not_join(unstarted: Make) -> None:
    """The address answers with the right host key, and is another node's."""
    cluster = unstarted()
    advertise(cluster.nodes[1], f"127.0.0.1:{cluster.nodes[0].ssh_port}")
    a, b = started(cluster)
    stays_out(a, b, f"node-a answers at 127.0.0.1:{a.ssh_port}", "ssh.advertise of node-b")


def test_a_standby_joins_once_its_address_is_right(unstarted: Make) -> None:
    """A port that nobody listens on; the operator corrects it and restarts the standby."""
    cluster = unstarted()
    a, b = cluster.nodes
    advertise(b, f"127.0.0.1:{free_port()}")
    started(cluster)
    stays_out(a, b, "nothing listens there", "firewall")
    assert "Errno" not in status_of(a).stdout
    b.terminate()
    advertise(b, f"127.0.0.1:{b.ssh_port}")
    b.start().wait_healthy()
    a.wait_in_sync_set("node-b")
    eventually(lambda: not kinds(a) and not kinds(b), "all is well on both")
    for node in (a, b):
        assert "all is well" in status_of(node).stdout
        assert status_of(node).returncode == 0


# -- one truth on both nodes -------------------------------------------------------------------------------


def test_a_standby_that_is_cut_off_says_when_it_was_last_in_step(cluster: Cluster) -> None:
    """Never "up to date" without a living connection; position is what it has applied, not 0."""
    a, b = cluster.nodes
    tree = cluster.client.work_tree("app")
    for number in range(3):
        cluster.client.commit(tree, f"{number}")
        cluster.client.git("push", "-q", cluster.client.url(a, "org/app"), "main", cwd=tree)
    eventually(lambda: b.status()["position"] == a.status()["position"] > 1, "the same position on both")
    b.terminate()
    a.signal(signal.SIGSTOP)  # it holds the lock, and answers nobody
    try:
        b.start().wait_healthy()
        eventually(lambda: b.status()["mirror"]["last_error"], "it tries to connect")
        page = flat(status_of(b).stdout)
        said = r"node-a leads test in term 1 \(says the record, read \d+ s ago\); this node, node-b, cannot"
        assert re.match(rf"{said} follow it: .* \(tried \d+ s ago\)", page)
        assert "last in step" in page
        assert "UTC (term 1, position" in page
        assert "up to date" not in page
        assert "nobody leads" not in page
        assert "not connected for" in page
        assert b.status()["position"] > 1
        assert status_of(b).returncode in {1, 2}
    finally:
        a.signal(signal.SIGCONT)


def test_a_refill_shows_how_far_it_is_on_both_nodes(unstarted: Make, tmp_path: Path) -> None:
    """Repositories, bytes and rate, in the same words: an empty disk that is filled is no hang."""
    cluster = unstarted()
    a, b = cluster.nodes
    assert cluster.bootstrap().returncode == 0
    a.start().wait_ready()
    tree = cluster.client.work_tree("app")
    cluster.client.commit(tree, "with a file", size_bytes=3 * 2**20)
    for name in ("one", "two", "huge"):
        cluster.client.git("push", "-q", cluster.client.url(a, f"org/{name}"), "main", cwd=tree)
    gits = GitLog(tmp_path / "gits")
    gits.hold("huge.git")
    b.start(env=gits.env).wait_healthy()

    def refill(node: NodeProcess) -> dict[str, Any]:
        status = node.status()
        standbys = {one["name"]: one for one in status.get("standbys", ())}
        seen = standbys.get("node-b", {}) if node is a else status.get("mirror") or {}
        return seen.get("refill") or {}

    for node in (a, b):
        eventually(lambda node=node: refill(node).get("done") == 2, f"{node.name} shows two of three")
        assert refill(node)["total"] == 3
        assert refill(node)["received_bytes"] > 6 * 2**20
        page = flat(status_of(node).stdout)
        assert "catching up: 2 of 3 repositories, 6." in page
        assert "MiB at" in page
        assert "up to date" not in page
        assert status_of(node).returncode == (2 if node is a else 1)
    (standby,) = a.status()["standbys"]
    assert standby["lag_changes"] == 1 == b.status()["mirror"]["behind_changes"]
    gits.let_go("huge.git")
    a.wait_in_sync_set("node-b")
    eventually(lambda: not refill(a) and not refill(b), "nothing is refilled any more")


def test_the_node_that_is_started_first_by_mistake_says_which_to_start(unstarted: Make) -> None:
    """The one where bootstrap was run."""
    cluster = unstarted()
    assert cluster.bootstrap().returncode == 0
    b = cluster.nodes[1].start().wait_healthy()
    words = "nobody leads test: nobody has led yet: start node-a, where bootstrap was run"
    eventually(lambda: words in flat(status_of(b).stdout), "what to do")
    assert status_of(b).returncode == 2


def test_a_node_that_does_not_run_is_unknown(unstarted: Make) -> None:
    """3, as monitoring plug-ins do; with the cause on stderr."""
    cluster = unstarted()
    cluster.nodes[0].write_config()
    done = status_of(cluster.nodes[0])
    assert done.returncode == 3
    assert done.stderr.startswith("stargate: ")


def test_status_over_ssh_ends_as_the_command_does(cluster: Cluster) -> None:
    """0 while all is well; 2 once the sync set is empty."""
    a, b = cluster.nodes
    eventually(lambda: not kinds(a), "all is well")
    assert cluster.client.ssh(a, "status").returncode == 0
    b.terminate()
    eventually(lambda: not a.status()["sync_set"], "the sync set is empty")
    done = cluster.client.ssh(a, "status")
    assert done.returncode == 2
    assert b"1 critical problem" in done.stdout
    assert cluster.client.ssh(a, "status", "--json").returncode == 2


# -- nodes that differ -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("replication", {"mode": "strict"}, "node-b has replication.mode strict, this node sync"),
        ("election", {"lease_s": 7}, "node-b has election.lease_s 7, this node 5: two nodes could lead"),
        ("repositories", {"trash_days": 3}, "node-b has repositories.trash_days 3, this node 7"),
    ],
)
def test_values_that_should_be_the_same_are_compared(
    unstarted: Make, section: str, values: dict[str, Any], words: str
) -> None:
    """Shown on both nodes as a warning, and counted."""
    cluster = unstarted()
    a, b = cluster.nodes
    b.config[section] = {**b.config.get(section, {}), **values}
    started(cluster)
    a.wait_in_sync_set("node-b")
    eventually(lambda: any(words in text for text in a.status()["warnings"]), words)
    eventually(lambda: "nodes_differ" in kinds(b), "the standby says so, too")
    assert status_of(a).returncode == 1
    assert "1 warning" in status_of(a).stdout


def test_different_authorized_keys_are_noticed_and_never_shown(cluster: Cluster) -> None:
    """A user who was removed on one node only gets in again with the next failover."""
    a, b = cluster.nodes
    eventually(lambda: not kinds(a), "all is well")
    shared = b.data_dir.parent / "keys" / "authorized_keys"
    mine = b.data_dir.parent / "authorized_keys.b"
    mine.write_text(shared.read_text() + "# one more line that changes nothing\n")
    b.config["ssh"]["authorized_keys"] = str(mine)
    b.terminate()
    b.start().wait_healthy()
    a.wait_in_sync_set("node-b")
    eventually(lambda: not kinds(a), "a comment makes no difference")
    mine.write_text("")
    warning = eventually(
        lambda: next((text for text in a.status()["warnings"] if "other keys" in text), None), "a warning"
    )
    assert warning is not None
    assert "0 keys" in warning
    assert "1 key" in warning
    assert shared.read_text().split()[-2] not in json.dumps(a.status())
    eventually(lambda: "nodes_differ" in kinds(b), "the standby says so, too")


# -- what only one node has, who is away, how much room there is ------------------------------------------


def text_of(node: NodeProcess, kind: str) -> str | None:
    """What the node says of that kind; None: nothing."""
    return next((one["text"] for one in node.status().get("concerns", ()) if one["kind"] == kind), None)


def metric(node: NodeProcess, name: str) -> float:
    """One sample, by its name with labels."""
    lines = node.get("/metrics")[1].decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[-1])


def test_what_only_the_leader_has_is_named_until_a_standby_has_it(cluster: Cluster) -> None:
    """Everywhere the same: page, JSON, /healthz, metric, log. Also after a restart of that leader."""
    a, b = cluster.nodes
    tree = cluster.client.work_tree("app")
    cluster.client.git("push", "-q", cluster.client.url(a, "org/both"), "main", cwd=tree)
    eventually(lambda: not kinds(a), "all is well")
    journal = a.data_dir / "state" / "unreplicated.log"
    noted = re.compile(rf'"replicated", ?1, ?{a.status()["position"]}\]')
    eventually(lambda: noted.search(journal.read_text(errors="replace")), "it is noted that node-b has it")
    b.terminate()
    eventually(lambda: not a.status()["sync_set"], "the sync set is empty")
    assert "only_copy" not in kinds(a)
    for number in range(2):
        cluster.client.commit(tree, f"more {number}")
        cluster.client.git("push", "-q", cluster.client.url(a, "org/only"), "main", cwd=tree)

    said = text_of(a, "only_copy")
    assert said is not None
    assert re.fullmatch(
        r"only node-a is known to have changes in 1 repository: org/only\.git since \d+ s \(3 changes\)", said
    )
    page = flat(status_of(a).stdout)
    assert "1 critical problem (sync set empty), 1 warning (only copy here)" in page
    assert "only node-a is known to have changes in 1 repository: org/only.git" in page
    (one,) = a.status()["unreplicated"]["repositories"]
    assert (one["repository"], one["elsewhere"]) == ("org/only", [])
    assert one["changes"] == 3, "made, and two pushes"
    assert time.time() - 600 < one["since"] <= time.time()
    code, body = a.get("/healthz")
    assert code == 200
    detail = json.loads(body)
    assert detail["level"] == "critical"
    assert {one["kind"] for one in detail["concerns"]} == {"sync_set_empty", "only_copy"}
    assert metric(a, "stargate_only_copy_repositories") == 1
    assert metric(a, 'stargate_concerns{kind="only_copy",level="warning"}') == 1
    eventually(lambda: '"only_copy"' in a.log() or "kind=only_copy" in a.log(), "the log has it")

    a.terminate()
    ended = len(a.log())
    a.start().wait_ready()
    again = eventually(lambda: text_of(a, "only_copy"), "it is known after a restart")
    eventually(lambda: "only_copy" in a.log()[ended:], "the log has it: what is not logged is never over")
    assert again == (
        "only node-a is known to have changes in 1 repository: org/only.git since before this term"
    )
    b.start().wait_healthy()
    a.wait_in_sync_set("node-b")
    eventually(lambda: not kinds(a), "node-b has it")
    assert a.status()["unreplicated"] == {"unknown": False, "repositories": []}
    assert metric(a, "stargate_only_copy_repositories") == 0
    eventually(lambda: "concern_over" in a.log(), "the log says that it is over")


def test_a_member_that_has_gone_was_last_heard_some_time_ago(unstarted: Make) -> None:
    """In strict it stays a member, and nothing is said of it without the age of that."""
    cluster = unstarted(overrides={"replication": {"mode": "strict"}})
    cluster.start()
    a, b = cluster.nodes
    a.wait_in_sync_set("node-b")
    (standby,) = a.status()["standbys"]
    assert 0 <= standby["heard_s"] < 60
    b.kill()
    said = eventually(lambda: text_of(a, "sync_set_gone"), "it is missed")
    assert re.search(r"\(node-b: last heard \d+ s ago\): pushes are refused with 75", said or "")
    (away,) = a.status()["away"]
    assert away["name"] == "node-b"
    assert away["heard_s"] >= 0


def test_a_disk_that_fills_up_is_a_concern_before_pushes_fail(tmp_path: Path) -> None:
    """Of the leader and of a standby alike; each names its own volume. The check of /healthz passes still."""
    cluster = make_cluster(tmp_path)
    a, b = cluster.nodes
    with small_disk(b.data_dir, megabytes=200):
        try:
            cluster.start()
            eventually(
                lambda: metric(b, 'stargate_volume_total_bytes{volume="data_dir"}') == 200 * 2**20, "size"
            )
            eventually(lambda: not kinds(b), "all is well")
            with (b.data_dir / "ballast").open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, 195 * 2**20)
            said = eventually(lambda: text_of(b, "disk_full"), "it is noticed", 30.0)
            assert re.match(r"data_dir: [345]\.\d MiB of 200\.0 MiB free \([12] %\) on ", said or "")
            assert "disk nearly full" in flat(status_of(b).stdout)
            assert status_of(b).returncode == 2
            assert "disk_full" not in kinds(a)
            assert b.get("/healthz")[0] == 200
            (b.data_dir / "ballast").unlink()
            eventually(lambda: not kinds(b), "there is room again", 30.0)
        finally:
            cluster.end()


def test_a_key_that_ends_soon_is_named(cluster: Cluster) -> None:
    """On every node whose file has it."""
    a, _ = cluster.nodes
    keys = a.data_dir.parent / "keys" / "authorized_keys"
    soon = datetime.now(UTC) + timedelta(days=3, hours=1)
    keys.write_text(f'expiry-time="{soon:%Y%m%d%H%M}Z",{keys.read_text()}')
    said = eventually(lambda: text_of(a, "key_expires"), "it is read", 30.0)
    assert re.match(r"1 user has no key that lasts: .* ends in 3 d 0 h \(line 1\)", said or "")
    assert a.status()["expiring_keys"][0]["line"] == 1


# -- what promote says -------------------------------------------------------------------------------------


def test_promote_states_the_time_of_the_last_equality_from_disk(cluster: Cluster) -> None:
    """Not that of the process's start: five pushes were acknowledged while it was stopped."""
    a, b = cluster.nodes
    tree = cluster.client.work_tree("app")
    cluster.client.git("push", "-q", cluster.client.url(a, "org/app"), "main", cwd=tree)
    cluster.wait_equal()
    b.terminate()
    stopped_at = time.time()
    eventually(lambda: not a.status()["sync_set"], "the sync set is empty")
    for number in range(5):
        cluster.client.commit(tree, f"{number}")
        cluster.client.git("push", "-q", cluster.client.url(a, "org/app"), "main", cwd=tree)
    eventually(lambda: time.time() > stopped_at + 3, "more than two seconds are over")
    a.kill()
    b.start().wait_healthy()
    eventually(lambda: b.status()["mirror"]["last_error"], "it tries to connect")
    said = subprocess.run(
        [*STARGATE, "promote", "-c", str(b.config_file)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert said.returncode == 64
    found = re.search(
        r"node-b had everything of node-a's term 1 up to position [0-9]+, before ([0-9:]+) UTC "
        r"\([0-9]+ s ago; node-b was stopped since\)",
        said.stderr,
    )
    assert found is not None, said.stderr
    hours, minutes, seconds = map(int, found[1].split(":"))
    told_s = (hours * 3600 + minutes * 60 + seconds - stopped_at) % 86_400
    assert told_s == 0 or told_s > 86_400 - 60, "no later than the stop, and not long before"


# -- what is refused before anything is made ---------------------------------------------------------------


def refused_everywhere(cluster: Cluster, words: str) -> None:
    """By check-config, bootstrap and serve alike: 78, and nothing was made."""
    node = cluster.nodes[0]
    node.write_config()
    for command in (("check-config",), ("bootstrap", "-c"), ("serve", "-c")):
        done = subprocess.run(
            [*STARGATE, *command, str(node.config_file)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 78, (command, done)
        assert "node.data_dir" in done.stderr
        assert words in done.stderr
    assert not cluster.lock_path.exists()


def test_a_data_dir_on_the_shared_volume_is_refused(unstarted: Make) -> None:
    """Each node needs a copy of its own."""
    cluster = unstarted()
    cluster.nodes[0].config["node"]["data_dir"] = str(cluster.lock_path.parent / "data")
    refused_everywhere(cluster, "is below")
    assert list(cluster.lock_path.parent.iterdir()) == []


def test_a_data_dir_with_foreign_things_is_refused(unstarted: Make) -> None:
    """And stays as it is."""
    cluster = unstarted()
    folder = cluster.nodes[0].data_dir
    folder.mkdir(mode=0o755)
    (folder / "photo.jpeg").write_text("not stargate's")
    refused_everywhere(cluster, "photo.jpeg")
    assert folder.stat().st_mode & 0o777 == 0o755


def test_bootstrap_where_nothing_is_mounted_is_refused(unstarted: Make) -> None:
    """A second cluster on the bare folder would lead beside the first. On one machine a flag allows it."""
    cluster = unstarted()
    advertise(cluster.nodes[0], "node-a.example:2222")
    refused = cluster.bootstrap()
    assert refused.returncode == 78
    assert "nothing is mounted at" in refused.stderr
    assert "--local-volume" in refused.stderr
    assert not cluster.lock_path.exists()
    cluster.bootstrap_options = ("--local-volume",)
    assert cluster.bootstrap().returncode == 0


def test_bootstrap_of_nodes_on_loopback_needs_no_mount(unstarted: Make) -> None:
    """All of them are on this machine."""
    cluster = unstarted()
    advertise(cluster.nodes[0], "localhost:2222")
    assert cluster.bootstrap().returncode == 0
