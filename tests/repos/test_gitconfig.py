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
    is_dropped,
    is_sealed,
    is_unwanted,
    parse_list,
    seal,
    unsupported,
)
from tests.support.git import git

HOOKS = Path('/data dir/ho"o\\ks#;')

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
    assert read(seal(adopted(said, HOOKS)), tmp_path / "config") == adopted(said, HOOKS)


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
            "remote.origin.url",
            "gc.pruneexpire",
        ),
        *("extensions.objectformat", "core.repositoryformatversion", "http.x", "gitweb.owner", "tar.umask"),
    ],
)
def test_policies_and_data_stay(key: str) -> None:
    """An operator's settings keep working."""
    assert is_unwanted(ConfigEntry(key.encode(), b"x")) == key.startswith("http.")


def test_a_seal_breaks_with_any_change_and_is_for_one_data_dir(tmp_path: Path) -> None:
    """By git, by hand, by moving to another data_dir."""
    sealed = seal(adopted([ConfigEntry(b"receive.denydeletes", b"true")], HOOKS))
    assert is_sealed(sealed, HOOKS)
    assert not is_sealed(sealed, Path("/other"))
    assert not is_sealed(sealed.replace(b"true", b"tru"), HOOKS)
    assert not is_sealed(sealed + b"[core]\n\tfsmonitor = x\n", HOOKS)
    assert not is_sealed(b"", HOOKS)
    assert not is_sealed(seal([ConfigEntry(b"core.bare", b"true")]), HOOKS)
    path = tmp_path / "config"
    path.write_bytes(sealed)
    git("config", "--file", path, "filter.x.smudge", "y")
    assert not is_sealed(path.read_bytes(), HOOKS)


def test_refs_in_a_table_are_not_supported() -> None:
    """Said before anything is changed."""
    assert unsupported([ConfigEntry(b"extensions.refstorage", b"reftable")])
    assert unsupported([ConfigEntry(b"extensions.refstorage", b"files")]) is None
    assert unsupported([]) is None
