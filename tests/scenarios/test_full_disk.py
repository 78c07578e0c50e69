"""The leader's disk is full: pushes fail clearly, nothing is half there; with room again it goes on."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Client, NodeProcess, eventually, make_cluster
from tests.support.small_disk import fill, small_disk


@contextlib.contextmanager
def a_node_on(folder: Path, *, megabytes: int) -> Iterator[tuple[NodeProcess, Client]]:
    """A single node that runs, its data_dir on a disk of that size, and a client of it."""
    cluster = make_cluster(folder, nodes=1)
    (node,) = cluster.nodes
    with small_disk(node.data_dir, megabytes=megabytes):
        try:
            cluster.start()
            yield node, cluster.client
        finally:
            cluster.end()


@pytest.mark.parametrize("unpack_limit", ["1", "100000"])
def test_a_push_to_a_full_disk_is_refused_and_leaves_nothing(tmp_path: Path, unpack_limit: str) -> None:
    """As a pack or as loose objects: the client sees a failure, the branch stays, and no litter does."""
    with a_node_on(tmp_path, megabytes=24) as (node, client):
        tree = client.work_tree("app")
        client.git("push", "-q", client.url(node, "org/app"), "main", cwd=tree)
        repository = node.data_dir / "repositories" / "org" / "app.git"
        client.git("--git-dir", str(repository), "config", "receive.unpackLimit", unpack_limit)
        first = client.commit(tree, "fits")
        client.git("push", "-q", client.url(node, "org/app"), "main", cwd=tree)
        ballast = fill(node.data_dir)
        second = client.commit(tree, "does not fit", size_bytes=2_000_000)
        failed = client.git("push", client.url(node, "org/app"), "main", cwd=tree, ok=False)
        assert failed.returncode != 0
        assert "No space left on device" in failed.stderr or "unpack" in failed.stderr, failed.stderr
        assert client.git("ls-remote", client.url(node, "org/app"), "main").stdout.split()[0] == first
        assert _litter(repository) == []
        ballast.unlink()
        eventually(node.ready, "a leader that takes writes again")
        client.git("push", "-q", client.url(node, "org/app"), "main", cwd=tree)
        assert client.git("ls-remote", client.url(node, "org/app"), "main").stdout.split()[0] == second


def test_a_repository_that_cannot_be_adopted_for_lack_of_space_says_so(tmp_path: Path) -> None:
    """A config that somebody changed is read anew and sealed; without room for that it is not "damaged"."""
    with a_node_on(tmp_path, megabytes=16) as (node, client):
        tree = client.work_tree("app")
        client.git("push", "-q", client.url(node, "org/app"), "main", cwd=tree)
        repository = node.data_dir / "repositories" / "org" / "app.git"
        client.git("--git-dir", str(repository), "config", "receive.unpackLimit", "7")
        ballast = fill(node.data_dir)
        failed = client.git("ls-remote", client.url(node, "org/app"), ok=False)
        assert "cannot be served now (no space left on device)" in failed.stderr
        ballast.unlink()
        client.git("ls-remote", client.url(node, "org/app"))


def test_health_says_that_the_disk_is_full_and_that_it_is_well_again(tmp_path: Path) -> None:
    """/healthz is 503 with the failing check while the data_dir takes no writes."""
    with a_node_on(tmp_path, megabytes=16) as (node, _):
        ballast = fill(node.data_dir)
        eventually(lambda: node.get("/healthz")[0] == 503, "healthz 503")
        assert b"data_dir" in node.get("/healthz")[1]
        ballast.unlink()
        eventually(lambda: node.get("/healthz")[0] == 200, "healthz 200")


def _litter(repository: Path) -> list[str]:
    """Lock files, temporary packs and quarantines that outlived their push."""
    patterns = ("**/*.lock", "objects/**/tmp_*", "objects/incoming-*")
    return [str(path) for pattern in patterns for path in repository.glob(pattern)]
