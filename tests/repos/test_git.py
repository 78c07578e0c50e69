"""How git is started: what it hides, what it allows, and what a copied-in config cannot make it do."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from stargate_gate.repos.git import (
    Service,
    git_argv,
    git_environment,
    repository_argv,
    service_argv,
    valid_git_protocol,
)
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.repository import Repository
from tests.support.git import git, make_work
from tests.support.room import Room

LIMIT_S = 30.0
APP = RepositoryName("app")


@pytest.fixture
async def repository(room: Room) -> Repository:
    return await room.store.create(APP)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return make_work(tmp_path / "work", commits=3)


def serve(room: Room, repository: Repository, service: Service, *, peer: bool = False, **env: str) -> bytes:
    """The advertisement of the service, to a client that hangs up then."""
    argv = service_argv(service, repository, hooks=room.datadir.hooks, peer=peer)
    done = subprocess.run(
        argv, env=git_environment(extra=env), input=b"0000", capture_output=True, timeout=LIMIT_S, check=False
    )
    return done.stdout + done.stderr


def transport(room: Room, service: Service, *, peer: bool = False, folder: Path) -> Path:
    """A program for --upload-pack and such, that starts the service as the gate does."""
    placeholder = Repository(APP, Path("@PATH@"))
    words = service_argv(service, placeholder, hooks=room.datadir.hooks, peer=peer)
    quoted = " ".join('"$1"' if word == "@PATH@" else f"'{word}'" for word in words)
    variables = " ".join(f"{key}='{value}'" for key, value in git_environment().items())
    script = folder / f"serve-{service}-{peer}"
    script.write_text(
        f"#!/bin/sh\nexec env -i {variables} ${{GIT_PROTOCOL:+GIT_PROTOCOL=$GIT_PROTOCOL}} {quoted}\n"
    )
    script.chmod(0o755)
    return script


def test_rescued_refs_are_never_shown_whatever_the_repository_says(
    room: Room, repository: Repository, work: Path
) -> None:
    """Its own hideRefs hides from users and not from mirrors; nothing shows refs/stargate."""
    specs = ["heads/main", "heads/secret", "stargate/rescued/1/x"]
    oid = git("rev-parse", "HEAD", cwd=work)
    git("fetch", "-q", work, "HEAD", cwd=repository.path)
    for spec in specs:
        git("update-ref", f"refs/{spec}", oid, cwd=repository.path)
    for value in ("refs/heads/secret", "!refs/stargate"):
        git("config", "--add", "transfer.hideRefs", value, cwd=repository.path)
    git("config", "--add", "uploadpack.hideRefs", "!refs/stargate/rescued", cwd=repository.path)
    for service in ("upload-pack", "receive-pack"):
        seen = serve(room, repository, service)
        assert b"refs/heads/main" in seen
        assert b"secret" not in seen
        assert b"rescued" not in seen
    for peer_view in (
        serve(room, repository, "upload-pack", peer=True),
        serve(room, repository, "upload-pack", peer=True, GIT_PROTOCOL="version=1"),
    ):
        assert b"refs/heads/secret" in peer_view
        assert b"rescued" not in peer_view


def test_nobody_pushes_to_reserved_refs(
    room: Room, repository: Repository, work: Path, tmp_path: Path
) -> None:
    """receive-pack refuses them."""
    receive = transport(room, "receive-pack", folder=tmp_path)
    done = subprocess.run(
        ["git", "push", f"--receive-pack={receive}", repository.path, "HEAD:refs/stargate/rescued/1/x"],
        cwd=work,
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 1
    assert b"deny updating a hidden ref" in done.stderr


@pytest.mark.parametrize("version", [0, 1, 2])
def test_partial_clones_and_archives_work(
    room: Room, repository: Repository, work: Path, tmp_path: Path, version: int
) -> None:
    """Filters are allowed, in each protocol version; `archive --remote` works."""
    git("fetch", "-q", work, "+refs/*:refs/*", cwd=repository.path)
    upload = transport(room, "upload-pack", folder=tmp_path)
    clone = tmp_path / "clone"
    flags = ["--filter=blob:none", "--no-checkout", f"--upload-pack={upload}"]
    git("-c", f"protocol.version={version}", "clone", "-q", *flags, f"file://{repository.path}", clone)
    missing = git("rev-list", "--objects", "--all", "--missing=print", cwd=clone)
    assert "?" in missing
    archive = transport(room, "upload-archive", folder=tmp_path)
    listing = subprocess.run(
        ["git", "archive", f"--remote={repository.path}", f"--exec={archive}", "HEAD"],
        capture_output=True,
        timeout=LIMIT_S,
        check=True,
    ).stdout
    assert b"file" in listing


def test_push_options_are_taken(room: Room, repository: Repository) -> None:
    """They are advertised, so that clients may send them."""
    assert b"push-options" in serve(room, repository, "receive-pack")


EVIL = """
[core]
	fsmonitor = {evil}
	sshCommand = {evil}
	gitProxy = {evil}
	alternateRefsCommand = {evil}
	hooksPath = {hooks}
	worktree = {elsewhere}
	bare = false
	askPass = {evil}
	pager = {evil}
	editor = {evil}
[uploadpack]
	packObjectsHook = {evil}
[receive]
	procReceiveRefs = refs
	denyCurrentBranch = updateInstead
	certNonceSeed = x
	denyDeletes = true
[gpg]
	program = {evil}
[filter "x"]
	smudge = {evil}
	process = {evil}
[tar "evil"]
	command = {evil}
	remote = true
[tar "tar.gz"]
	command = {evil}
	remote = true
[diff "x"]
	textconv = {evil}
[merge "x"]
	driver = {evil}
[url "ext::{evil}"]
	insteadOf = fd::
[protocol "ext"]
	allow = always
[remote "origin"]
	url = ext::{evil}
	uploadpack = {evil}
	vcs = evil
[extensions]
	worktreeConfig = true
[hook "x"]
	command = {evil}
	event = pre-receive
	event = reference-transaction
	event = post-receive
[fetch]
	bundleURI = file://{evil}
[credential]
	helper = {evil}
[include]
	path = {included}
[includeIf "gitdir:**"]
	path = {included}
[alias]
	gc = !{evil}
[gc]
	recentObjectsHook = {evil}
"""
HOOKS = ("pre-receive", "update", "post-receive", "post-update", "reference-transaction", "proc-receive")


@pytest.fixture
def evil(room: Room, work: Path, tmp_path: Path) -> Path:
    """A copied-in repository that names a program wherever git lets it; returns the file it would write."""
    ran = tmp_path / "ran"
    program = tmp_path / "evil"
    program.write_text(f'#!/bin/sh\necho "$0 $*" >> {ran}\nexit 1\n')
    program.chmod(0o755)
    path = room.datadir.repositories / "app.git"
    git("clone", "-q", "--bare", work, path)
    for folder in (path / "hooks", tmp_path / "hooks"):
        folder.mkdir(exist_ok=True)
        for hook in HOOKS:
            shutil.copy(program, folder / hook)
    config = EVIL.format(
        evil=program, hooks=tmp_path / "hooks", elsewhere=tmp_path / "x", included=tmp_path / "inc"
    )
    (tmp_path / "inc").write_text(f'[core]\n\tfsmonitor = {program}\n[filter "y"]\n\tsmudge = {program}\n')
    (path / "config").write_text((path / "config").read_text() + config)
    (path / "config.worktree").write_text(f"[core]\n\tfsmonitor = {program}\n")
    (path / "info/attributes").write_text("* filter=x diff=x\n")
    return ran


async def test_a_copied_in_repository_starts_no_program_of_its_own(
    room: Room, evil: Path, work: Path, tmp_path: Path
) -> None:
    """Fetch, push, archive and our own commands, in a repository whose config and hooks name programs."""
    repository = await room.store.require(APP)
    upload, receive, archive = (
        transport(room, service, folder=tmp_path)
        for service in ("upload-pack", "receive-pack", "upload-archive")
    )
    git("clone", "-q", f"--upload-pack={upload}", f"file://{repository.path}", tmp_path / "clone")
    (tmp_path / "clone/file").write_text("new\n")
    git("commit", "-qam", "new", cwd=tmp_path / "clone")
    pushed = subprocess.run(
        ["git", "push", f"--receive-pack={receive}", "origin", "HEAD:refs/heads/new"],
        cwd=tmp_path / "clone",
        env={**os.environ},
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert b"not leader" in pushed.stderr  # our own hook ran, and no other
    for format_ in ("tar", "tar.gz", "zip", "evil"):
        subprocess.run(
            [
                "git",
                "archive",
                f"--remote={repository.path}",
                f"--exec={archive}",
                f"--format={format_}",
                "HEAD",
            ],
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )
    await room.refs.snapshot(repository)
    for words in (
        ["update-ref", "refs/heads/z", "HEAD"],
        ["fetch", "origin"],
        ["maintenance", "run", "--task=gc"],
    ):
        await room.processes.complete(
            repository_argv(repository, *words), limit_s=LIMIT_S, writes=repository.path
        )
    assert not evil.exists(), evil.read_text()
    assert git("config", "receive.denyDeletes", cwd=repository.path) == "true"
    assert git("config", "core.bare", cwd=repository.path) == "true"
    assert "fsmonitor" in (repository.path / "config.before-stargate").read_text()


def test_the_attack_works_on_plain_git(room: Room, evil: Path) -> None:
    """Without our flags, environment and adoption the same repository does start its programs."""
    path = room.datadir.repositories / "app.git"
    config = path / "config"
    config.write_text(config.read_text().replace("bare = false", "bare = true").replace("worktree =", "x ="))
    subprocess.run(
        ["git", "archive", f"--remote={path}", "--format=evil", "HEAD"], capture_output=True, check=False
    )
    assert evil.exists()


async def test_even_before_adoption_flags_and_environment_hold(
    room: Room, evil: Path, tmp_path: Path
) -> None:
    """What a flag can take back needs no adoption: clone and push advertisement of the raw repository."""
    config = room.datadir.repositories / "app.git/config"
    config.write_text(config.read_text().replace("bare = false", "bare = true").replace("worktree =", "x ="))
    repository = Repository(APP, room.datadir.repositories / "app.git")
    upload = transport(room, "upload-pack", folder=tmp_path)
    git("clone", "-q", f"--upload-pack={upload}", f"file://{repository.path}", tmp_path / "clone")
    assert b"refs/heads/main" in serve(room, repository, "receive-pack")
    assert not evil.exists(), evil.read_text()


def test_git_is_durable_and_leaves_nothing_running() -> None:
    """The constant flags, before whatever a command adds, which wins."""
    argv = git_argv("gc", config=["gc.auto=1"])
    flags = [argv[place + 1] for place, word in enumerate(argv) if word == "-c"]
    assert {"core.fsync=all", "maintenance.auto=false", "receive.autogc=false"} <= set(flags)
    assert flags.index("gc.auto=0") < flags.index("gc.auto=1")
    assert argv[0] == "git"
    assert argv[-1] == "gc"


def test_the_environment_is_an_allow_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the node's own only PATH and TMPDIR pass."""
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.delenv("PATH")
    monkeypatch.setenv("TMPDIR", "/t")
    env = git_environment(extra={"STARGATE_GATE_TOKEN": "x"})
    assert env["PATH"] == os.defpath
    assert env["TMPDIR"] == "/t"
    assert env["STARGATE_GATE_TOKEN"] == "x"
    assert not {"GIT_CONFIG_COUNT", "LD_PRELOAD"} & set(env)


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ("version=2", True),
        ("version=0", True),
        ("version=1:key=value.x-y", True),
        (None, False),
        ("", False),
        ("version=2\n", False),
        ("version=2;id", False),
        ("version=22", False),
        ("version=2:" + "a" * 64, False),
        ("GIT_DIR=x", False),
        ("version=٢", False),
    ],
)
def test_only_a_well_formed_git_protocol_passes(value: str | None, *, good: bool) -> None:
    """Anything else counts as absent."""
    assert valid_git_protocol(value) == (value if good else None)
