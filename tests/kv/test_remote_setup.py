"""`git kv remote setup`: the policy of a repository says where to push."""

from pathlib import Path

import pytest

from stargate_gate.kv.errors import KvError
from stargate_gate.kv.policy import push_urls
from tests.support.git import git
from tests.support.kv import Kv


def write_policy(kv: Kv, text: str) -> None:
    """Into the work tree."""
    (kv.path / ".kv").mkdir(exist_ok=True)
    (kv.path / ".kv" / "policy.yaml").write_text(text)


def test_it_sets_the_pushurl_and_writes_go_there(kv: Kv, tmp_path: Path, served: Path) -> None:
    """What is written there is read there, too."""
    git("init", "-q", "--bare", tmp_path / "stargate.git")
    write_policy(kv, f"version: 1\nstargate:\n  push_url: {tmp_path}/stargate.git\n")
    for _ in range(2):
        assert kv.ok("remote", "setup").decode() == f"remote.origin.pushurl {tmp_path}/stargate.git\n"
    assert kv.git("config", "--get-all", "remote.origin.pushurl") == f"{tmp_path}/stargate.git"
    kv.ok("set", "k", "v")
    assert kv.ok("get", "k") == b"v"
    assert git("--git-dir", served, "for-each-ref") == ""
    assert kv.ok("--remote", "origin", "--json", "remote", "setup").startswith(b"{")


def test_a_list_makes_several_pushurls(kv: Kv) -> None:
    """They replace what was there before."""
    kv.git("config", "remote.origin.pushurl", "ssh://old/x")
    write_policy(kv, "stargate: {push_url: ['ssh://git@a:2222/x', 'git@b:x']}")
    kv.ok("remote", "setup")
    assert kv.git("config", "--get-all", "remote.origin.pushurl").split() == ["ssh://git@a:2222/x", "git@b:x"]


def test_a_bare_repository_has_its_policy_in_head(kv: Kv, tmp_path: Path) -> None:
    """There is no work tree to look at."""
    write_policy(kv, "stargate: {push_url: 'ssh://git@a/x'}")
    kv.git("add", ".kv")
    kv.git("commit", "-q", "-m", "policy")
    git("clone", "-q", "--bare", kv.path, tmp_path / "bare.git")
    bare = Kv(tmp_path / "bare.git")
    bare.ok("remote", "setup")
    assert bare.git("config", "remote.origin.pushurl") == "ssh://git@a/x"


def test_without_a_policy_or_a_remote_nothing_is_set(kv: Kv) -> None:
    """And the line says what is missing."""
    assert "there is no .kv/policy.yaml here" in kv.fails(5, "remote", "setup")
    write_policy(kv, "stargate: {push_url: 'ssh://git@a/x'}")
    assert "no remote 'upstream' here" in kv.fails(64, "remote", "setup", "--remote", "upstream")


@pytest.mark.parametrize(
    "text", ["", "[", "stargate: 1", "stargate: {}", "stargate: {push_url: 1}", "stargate: {push_url: []}"]
)
def test_what_is_no_policy_is_said(text: str) -> None:
    """One line."""
    with pytest.raises(KvError, match=r"^\.kv/policy\.yaml "):
        push_urls(text.encode())


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c touch% /tmp/x",
        "ext::sh",
        "fd::17",
        "-oProxyCommand=touch",
        "ssh://-oProxyCommand=touch/x",
        "--upload-pack=touch",
        "git@-host:x",
        "host:-x",
        "http://a/x",
        "git://a/x",
        "ssh://a/x y",
        "ssh://a/x\ny",
        "relative/path",
    ],
)
def test_a_policy_cannot_run_programs(url: str) -> None:
    """Whoever may commit writes the policy: it may name a server, and nothing else that git would follow."""
    with pytest.raises(KvError, match="only ssh://, https:// and file URLs"):
        push_urls(f"stargate: {{push_url: {url!r}}}".replace("'", '"').encode())


@pytest.mark.parametrize(
    "url",
    [
        "ssh://git@stargate.local:2222/org/repo.git",
        "git+ssh://a/x",
        "https://a/x",
        "git@a:x",
        "a:x",
        "[::1]:x",
        "/srv/x.git",
        "file:///srv/x",
    ],
)
def test_usual_urls_are_taken(url: str) -> None:
    """As users write them."""
    assert push_urls(f"stargate: {{push_url: '{url}'}}".encode()) == [url]
