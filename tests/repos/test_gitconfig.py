"""Config files are rewritten without changing what stays."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stargate_gate.repos.gitconfig import (
    ConfigEntry,
    adopted,
    encode,
    fresh,
    is_dropped,
    is_sealed,
    is_unwanted,
    local_policy,
    parse_list,
    seal,
    unsupported,
)
from tests.support.git import git

HOOKS = Path('/data dir/ho"o\\ks#;')
KEY = b"a secret of this data_dir"

words = st.from_regex(rb"[a-z][a-z0-9-]{0,6}", fullmatch=True)
raw = st.binary(max_size=20).filter(lambda value: b"\0" not in value and b"\r" not in value)
subsections = raw.filter(lambda value: b"\n" not in value)
keys = st.one_of(
    st.tuples(words, words).map(b".".join),
    st.tuples(words, subsections, words).map(b".".join),
)
entries = st.lists(st.builds(ConfigEntry, keys, st.none() | raw), max_size=8)


def read(config: bytes, path: Path) -> list[ConfigEntry]:
    path.write_bytes(config)
    argv = ["git", "config", "--file", str(path), "--no-includes", "--list", "-z"]
    return parse_list(subprocess.run(argv, check=True, capture_output=True).stdout)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries)
def test_git_reads_what_was_written(tmp_path: Path, said: list[ConfigEntry]) -> None:
    """Sections with any bytes, values with quotes, comments, newlines, blanks; keys alone."""
    assert read(encode(said), tmp_path / "config") == said
    assert read(seal(adopted(said, HOOKS), KEY), tmp_path / "config") == adopted(said, HOOKS)


@pytest.mark.parametrize(
    "key",
    [
        *(
            "core.fsmonitor",
            "core.sshcommand",
            "core.hookspath",
            "core.worktree",
            "core.alternaterefscommand",
        ),
        *(
            "filter.x.y.smudge",
            "filter.x\ny.process",
            "diff.a.b.textconv",
            "merge.x.driver",
            "tar.tar.gz.command",
        ),
        *(
            "include.path",
            "includeif.gitdir:/.path",
            "alias.x",
            "gpg.program",
            "gpg.ssh.program",
            "pager.log",
        ),
        *(
            "uploadpack.packobjectshook",
            "receive.procreceiverefs",
            "gc.recentobjectshook",
            "credential.helper",
        ),
        # in newer releases of git
        *("hook.x.command", "hook.x.event", "hook.pre-receive.enabled", "hook.jobs", "fetch.bundleuri"),
        *("transfer.bundleuri", "bundle.x.uri", "bundle.version", "uploadpack.advertisebundleuris"),
        # and whatever comes
        *("core.usereplacerefs", "diff.external", "receive.fsck.skiplist", "fsck.skiplist", "new.key", "x.y"),
        *("receive.certnonceseed", "maintenance.strategy", "instaweb.browser", "guitool.x.cmd"),
        *("remote.origin.url", "gc.pruneexpire", "core.fsync", "core.sharedrepository"),
        *("credential.https://x.helper", "remote.o.vcs", "remote.o.uploadpack", "remote.a.b.promisor"),
        *(
            "url.ext::x.insteadof",
            "protocol.ext.allow",
            "extensions.worktreeconfig",
            "extensions.partialclone",
        ),
    ],
)
def test_what_starts_programs_or_leads_elsewhere_goes(key: str) -> None:
    """Whatever the subsection is called."""
    assert is_unwanted(ConfigEntry(key.encode(), b"x"))
    assert is_dropped(ConfigEntry(key.encode(), b"x")) == (key != "core.hookspath")


@pytest.mark.parametrize(
    "key",
    [
        *("receive.denydeletes", "receive.denynonfastforwards", "receive.fsckobjects", "transfer.hiderefs"),
        *(
            "uploadpack.allowfilter",
            "pack.threads",
            "core.compression",
            "uploadpackfilter.blob:none.allow",
        ),
        *("extensions.objectformat", "core.repositoryformatversion", "http.x", "gitweb.owner", "tar.umask"),
    ],
)
def test_policies_and_data_stay(key: str) -> None:
    """An operator's settings keep working."""
    assert is_unwanted(ConfigEntry(key.encode(), b"x")) == key.startswith("http.")


def test_a_seal_breaks_with_any_change_and_is_for_one_data_dir(tmp_path: Path) -> None:
    """By git, by hand, by moving to another data_dir."""
    sealed = seal(adopted([ConfigEntry(b"receive.denydeletes", b"true")], HOOKS), KEY)
    assert is_sealed(sealed, HOOKS, KEY)
    assert not is_sealed(sealed, Path("/other"), KEY)
    assert not is_sealed(sealed, HOOKS, b"another data_dir's")
    assert not is_sealed(sealed.replace(b"true", b"tru"), HOOKS, KEY)
    assert not is_sealed(sealed + b"[core]\n\tfsmonitor = x\n", HOOKS, KEY)
    assert not is_sealed(b"", HOOKS, KEY)
    assert not is_sealed(seal([ConfigEntry(b"core.bare", b"true")], KEY), HOOKS, KEY)
    path = tmp_path / "config"
    path.write_bytes(sealed)
    git("config", "--file", path, "filter.x.smudge", "y")
    assert not is_sealed(path.read_bytes(), HOOKS, KEY)


@pytest.mark.parametrize("value", [b"ignore", b"warn", b"error", b"/etc/passwd", b"", None])
def test_a_repository_may_take_more_than_others(value: bytes | None) -> None:
    """receive.fsck.MESSAGE stays, with git's own words and no others."""
    allowed = value in {b"ignore", b"warn", b"error"}
    assert is_unwanted(ConfigEntry(b"receive.fsck.duplicateentries", value)) != allowed


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"extensions.refstorage": "reftable"}, "not stored as files"),
        ({"extensions.refstorage": "files"}, None),
        ({}, None),
        ({"core.repositoryformatversion": "0"}, None),
        ({"core.repositoryformatversion": "2"}, "repositoryformatversion"),
        ({"core.repositoryformatversion": "1", "extensions.objectformat": "sha256"}, None),
        ({"core.repositoryformatversion": "0", "extensions.objectformat": "sha256"}, "set it"),
        ({"core.repositoryformatversion": "1", "extensions.objectformat": "blake3"}, "objectformat"),
        ({"extensions.fancy": "x"}, "extensions.fancy"),
        ({"extensions.compatobjectformat": "sha256"}, "extensions.compatobjectformat"),
        ({"extensions.worktreeconfig": "true", "extensions.relativeworktrees": "true"}, None),
        ({"extensions.preciousobjects": "true", "extensions.noop": "x"}, None),
        ({"extensions.partialclone": "origin"}, "partial clone"),
        ({"remote.origin.promisor": "true"}, "partial clone"),
        ({"remote.origin.promisor": "false"}, None),
    ],
)
def test_what_git_or_stargate_does_not_know_is_refused_by_name(
    said: dict[str, str], word: str | None
) -> None:
    """Said before anything is changed; with what to do."""
    problem = unsupported([ConfigEntry(key.encode(), value.encode()) for key, value in said.items()])
    assert (
        (problem is None) if word is None else (problem is not None and word in problem and ": " in problem)
    )


def test_policies_that_other_nodes_may_lack_are_named() -> None:
    """By the keys in a sealed config; not if the operator says that all nodes have them."""
    policy = {"receive.denydeletes": "true", "transfer.hiderefs": 'a"b\\c', "receive.fsck.badname": "ignore"}
    said = [ConfigEntry(key.encode(), value.encode()) for key, value in {**policy, "pack.depth": "3"}.items()]
    assert local_policy(seal(adopted(said, HOOKS), KEY)) == tuple(sorted(policy))
    said.append(ConfigEntry(b"stargate.setoneverynode", b"true"))
    assert local_policy(seal(adopted(said, HOOKS), KEY)) == ()
    assert local_policy(seal(fresh("sha256", HOOKS), KEY)) == ()
