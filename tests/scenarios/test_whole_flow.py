"""What developers do all day, with real git against two real nodes: both hold the same after every step."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, running_cluster


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory):
    """One cluster for the whole file: each test uses repositories of its own."""
    with running_cluster(tmp_path_factory.mktemp("flow")) as cluster:
        yield cluster


def pushed(cluster: Cluster, name: str, *, object_format: str = "sha1") -> Path:
    """A work tree whose `main` is on the leader as repository `name`."""
    client, leader = cluster.client, cluster.leader()
    if object_format != "sha1":
        made = client.ssh(leader, "repo", "create", name, f"--object-format={object_format}")
        assert made.returncode == 0, made.stderr
    tree = client.work_tree(name.replace("/", "-"), object_format=object_format)
    client.git("remote", "add", "origin", client.url(leader, name), cwd=tree)
    client.git("push", "-q", "-u", "origin", "main", cwd=tree)
    return tree


@pytest.mark.parametrize("protocol", ["0", "1", "2"])
def test_each_protocol_version_clones_fetches_and_pushes(shared: Cluster, protocol: str) -> None:
    """Protocols 0, 1 and 2 all work, on the leader and (reads) on the standby."""
    client, name = shared.client, f"proto/v{protocol}"
    tree = pushed(shared, name)
    shared.wait_equal()
    with_protocol = ("-c", f"protocol.version={protocol}")
    client.commit(tree, "more")
    client.git(*with_protocol, "push", "-q", "origin", "main", cwd=tree)
    shared.wait_equal()
    for node in shared.nodes:
        copy = client.home / f"copy-{protocol}-{node.name}"
        client.git(*with_protocol, "clone", "-q", client.url(node, name), str(copy))
        assert (copy / "file").read_text() == "more\n"
        client.git(*with_protocol, "fetch", "-q", cwd=copy)
        refused = client.git(
            *with_protocol,
            "push",
            client.url(shared.standby(), name),
            "HEAD:refs/heads/x",
            cwd=tree,
            ok=False,
        )
        assert refused.returncode == 128
        assert "fatal: remote error: not leader: " in refused.stderr


def test_shallow_partial_and_single_branch_clones_work(shared: Cluster) -> None:
    """The ways to clone less than everything, from the standby."""
    client, name = shared.client, "clones/app"
    tree = pushed(shared, name)
    for number in range(5):
        client.commit(tree, f"commit {number}", size_bytes=1000)
    client.git("push", "-q", "origin", "main", "main:side", cwd=tree)
    shared.wait_equal()
    url = client.url(shared.standby(), name)
    client.git("clone", "-q", "--depth=2", url, "shallow")
    assert client.git("rev-list", "--count", "HEAD", cwd=client.home / "shallow").stdout.strip() == "2"
    client.git("fetch", "-q", "--unshallow", cwd=client.home / "shallow")
    assert client.git("rev-list", "--count", "HEAD", cwd=client.home / "shallow").stdout.strip() == "6"
    client.git("clone", "-q", "--filter=blob:none", "--no-checkout", url, "partial")
    assert (
        "?"
        in client.git("rev-list", "--objects", "--missing=print", "HEAD", cwd=client.home / "partial").stdout
    )
    client.git("checkout", "-q", "main", cwd=client.home / "partial")
    client.git("clone", "-q", "--single-branch", "--branch=side", url, "single")
    branches = client.git("branch", "-r", cwd=client.home / "single").stdout.split()
    assert branches == ["origin/side"]


def test_archive_of_a_remote_works_on_every_node(shared: Cluster) -> None:
    """`git archive --remote` reads from the leader and from the standby."""
    client, name = shared.client, "archive/app"
    pushed(shared, name)
    shared.wait_equal()
    for node in shared.nodes:
        target = client.home / f"{node.name}.tar"
        client.git("archive", f"--remote={client.url(node, name)}", "-o", str(target), "main")
        listed = subprocess.run(
            ["tar", "tf", str(target)], capture_output=True, text=True, check=True, timeout=10
        )
        assert listed.stdout.split() == ["file"]


def test_an_atomic_push_of_several_refs_is_all_or_nothing(shared: Cluster) -> None:
    """`--atomic`: one ref that cannot move takes the others with it, on both nodes."""
    client, name = shared.client, "atomic/app"
    tree = pushed(shared, name)
    client.git("push", "-q", "--atomic", "origin", "main:one", "main:two", "main:refs/tags/t", cwd=tree)
    before = shared.wait_equal()
    client.commit(tree, "ahead")
    client.git("push", "-q", "origin", "main:ahead", cwd=tree)
    after_ahead = shared.wait_equal()
    assert after_ahead != before
    client.git("reset", "-q", "--hard", "HEAD~1", cwd=tree)
    client.commit(tree, "another history")
    refused = client.git("push", "--atomic", "origin", "main:one", "main:ahead", cwd=tree, ok=False)
    assert refused.returncode == 1
    assert shared.wait_equal() == after_ahead


def test_push_options_reach_the_server(shared: Cluster) -> None:
    """`git push -o` is accepted: the server advertises push options."""
    client = shared.client
    tree = pushed(shared, "options/app")
    client.commit(tree, "with an option")
    client.git("push", "-q", "-o", "ci.skip", "origin", "main", cwd=tree)
    shared.wait_equal()


def test_a_sha256_repository_is_created_pushed_mirrored_and_cloned(shared: Cluster) -> None:
    """The object format travels to the standby."""
    client, name = shared.client, "sha256/app"
    tree = pushed(shared, name, object_format="sha256")
    contents = shared.wait_equal()
    oid = client.git("rev-parse", "HEAD", cwd=tree).stdout.strip()
    assert len(oid) == 64
    assert oid in contents[f"{name}.git"]
    client.git("clone", "-q", client.url(shared.standby(), name), "sha256-copy")


def test_a_sha256_push_into_a_new_name_says_how_to_create_it(shared: Cluster) -> None:
    """A client whose object format differs learns what to do, in words."""
    client = shared.client
    tree = client.work_tree("wrong-format", object_format="sha256")
    refused = client.git("push", client.url(shared.leader(), "sha256/implicit"), "main", cwd=tree, ok=False)
    assert refused.returncode != 0


def test_deletions_renames_and_forced_updates_reach_the_standby(shared: Cluster) -> None:
    """Every kind of ref update: delete, a -> a/b and back, forced, tags, notes, odd namespaces."""
    client = shared.client
    tree = pushed(shared, "refs/app")
    steps = (
        ("origin", "main:a", "main:gone", "main:refs/notes/commits", "main:refs/meta/config"),
        ("origin", ":a", ":gone"),
        ("origin", "main:a/b"),
        ("origin", ":a/b"),
        ("origin", "main:a"),
        ("origin", "--tags"),
    )
    client.git("tag", "-a", "-m", "tag", "v1", cwd=tree)
    for step in steps:
        client.git("push", "-q", *step, cwd=tree)
        shared.wait_equal()
    client.commit(tree, "two")
    client.git("push", "-q", "origin", "main", cwd=tree)
    client.git("reset", "-q", "--hard", "HEAD~1", cwd=tree)
    client.commit(tree, "two, rewritten")
    client.git("push", "-q", "--force", "origin", "main", cwd=tree)
    contents = shared.wait_equal()
    assert client.git("rev-parse", "HEAD", cwd=tree).stdout.strip() in contents["refs/app.git"]


def test_the_reserved_refs_can_neither_be_pushed_nor_seen(shared: Cluster) -> None:
    """refs/stargate/* belongs to Stargate."""
    client = shared.client
    tree = pushed(shared, "reserved/app")
    refused = client.git("push", "origin", "main:refs/stargate/rescued/x", cwd=tree, ok=False)
    assert refused.returncode == 1
    assert "refs/stargate" not in client.git("ls-remote", "origin", cwd=tree).stdout


def test_twenty_repositories_pushed_at_once_arrive_whole(shared: Cluster) -> None:
    """Twenty developers push to twenty new repositories at the same moment."""
    client, leader = shared.client, shared.leader()
    trees = [client.work_tree(f"many-{number}") for number in range(20)]

    def push(number: int) -> None:
        client.git("push", "-q", client.url(leader, f"many/app-{number}"), "main", cwd=trees[number])

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(push, range(20)))
    contents = shared.wait_equal()
    for number, tree in enumerate(trees):
        oid = client.git("rev-parse", "HEAD", cwd=tree).stdout.strip()
        assert oid in contents[f"many/app-{number}.git"]


def test_twenty_pushes_at_once_into_one_new_repository_create_it_once(shared: Cluster) -> None:
    """Twenty developers push twenty branches into one name that nobody made."""
    client, leader = shared.client, shared.leader()
    tree = client.work_tree("one-repository")

    def push(number: int) -> None:
        client.git("push", "-q", client.url(leader, "race/app"), f"main:branch-{number}", cwd=tree)

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(push, range(20)))
    contents = shared.wait_equal()
    assert contents["race/app.git"].count("refs/heads/branch-") == 20 + contents["race/app.git"].startswith(
        "ref: refs/heads/branch-"
    )


def test_the_first_branch_pushed_becomes_head_on_both_nodes(shared: Cluster) -> None:
    """A push of `master` into a repository whose HEAD says `main` still clones with files."""
    client, leader = shared.client, shared.leader()
    tree = client.work_tree("head")
    client.git("push", "-q", client.url(leader, "head/app"), "main:master", cwd=tree)
    contents = shared.wait_equal()
    assert contents["head/app.git"].startswith("ref: refs/heads/master")
    for node in shared.nodes:
        client.git("clone", "-q", client.url(node, "head/app"), f"head-{node.name}")
        assert (client.home / f"head-{node.name}" / "file").exists()


def test_repositories_are_listed_deleted_and_made_again(shared: Cluster) -> None:
    """`repo list|create|delete` over ssh; a deletion reaches the standby's trash, not its void."""
    client, leader = shared.client, shared.leader()
    tree = pushed(shared, "life/app")
    assert "life/app" in client.ssh(leader, "repo", "list").stdout.decode().split()
    shared.wait_equal()
    assert client.ssh(leader, "repo", "delete", "life/app").returncode == 0
    contents = shared.wait_equal()
    assert "life/app.git" not in contents
    for node in shared.nodes:
        assert list((node.data_dir / "trash").glob("**/HEAD")), f"{node.name} keeps what was deleted"
    gone = client.ssh(leader, "git-upload-pack", "'life/app'")
    assert gone.returncode == 66
    client.git("push", "-q", "origin", "main", cwd=tree)
    assert "life/app.git" in shared.wait_equal()


def test_a_bare_repository_copied_in_is_served_and_mirrored_without_a_restart(shared: Cluster) -> None:
    """An operator moves an existing server's repositories in."""
    client, leader = shared.client, shared.leader()
    tree = client.work_tree("old-server")
    target = leader.data_dir / "repositories" / "moved" / "in.git"
    client.git("clone", "-q", "--bare", str(tree), str(target))
    assert client.git("ls-remote", client.url(leader, "moved/in")).stdout
    client.commit(tree, "after the move")
    client.git("push", "-q", client.url(leader, "moved/in"), "main", cwd=tree)
    assert "moved/in.git" in shared.wait_equal()
