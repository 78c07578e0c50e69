"""Raw commands become one value each, or a refusal; nothing in them is ever interpreted."""

import subprocess

import pytest

from stargate_gate.errors import UsageError
from stargate_gate.gate.commands import (
    Command,
    GitService,
    Health,
    PeerCommand,
    Ready,
    RepoCreate,
    RepoDelete,
    RepoList,
    ShowStatus,
    Welcome,
    is_git_service,
    parse_command,
)
from stargate_gate.repos.names import RepositoryName

APP = RepositoryName("org/app")


@pytest.mark.parametrize(
    ("raw", "command"),
    [
        (None, Welcome()),
        ("", Welcome()),
        ("   ", Welcome()),
        ("git-receive-pack '/org/app.git'", GitService("receive-pack", APP)),
        ("git-receive-pack 'org/app'", GitService("receive-pack", APP)),
        ("git receive-pack '/org/app.git'", GitService("receive-pack", APP)),
        ("git-upload-pack '/org/app.git/'", GitService("upload-pack", APP)),
        ("git-upload-pack org/app", GitService("upload-pack", APP)),
        ("git-upload-archive '/org/app.git'", GitService("upload-archive", APP)),
        ('git-upload-pack "/org/app.git"', GitService("upload-pack", APP)),
        ("health", Health()),
        ("ready", Ready()),
        ("status", ShowStatus()),
        ("status --json", ShowStatus(json=True)),
        ("repo list", RepoList()),
        ("repo create org/app", RepoCreate(APP)),
        ("repo create org/app --object-format=sha256", RepoCreate(APP, "sha256")),
        ("repo create --object-format=sha1 org/app.git", RepoCreate(APP, "sha1")),
        ("repo delete org/app", RepoDelete(APP)),
        ("stargate-feed node-b 0123", PeerCommand(("stargate-feed", "node-b", "0123"))),
        ("stargate-refs org/app", PeerCommand(("stargate-refs", "org/app"))),
    ],
)
def test_commands_are_understood(raw: str | None, command: Command) -> None:
    """As git clients, people and peers send them."""
    assert parse_command(raw) == command


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("git-receive-pack", "takes one repository name"),
        ("git-receive-pack 'a' 'b'", "takes one repository name"),
        ("git-upload-pack --strict 'a'", "takes one repository name"),
        ("git-upload-pack '--upload-pack=evil'", "not a repository name"),
        ("git-upload-pack 'it'\\''s'", "not a repository name"),
        ("git-upload-pack 'wow'\\!''", "not a repository name"),
        ("git-upload-pack '../../etc/passwd'", "not a repository name"),
        ("git-upload-pack '/../etc'", "not a repository name"),
        ("git-upload-pack 'etc//passwd'", "not a repository name"),
        ("git-upload-pack 'org/k\u00e4se'", "'org/k\u00e4se': only letters"),
        ("git-upload-pack 'org/k\udce4se'", "not UTF-8"),
        ("rpeo list", "unknown command 'rpeo'; did you mean repo? run ssh"),
        ("git-recieve-pack a", "did you mean git-receive-pack?"),
        ("healthy", "did you mean health?"),
        ("git-upload-pack '~/app'", "not a repository name"),
        ("git-upload-pack '/org/app.git/hooks'", "not a repository name"),
        ("git-upload-pack 'a\\b'", "not a repository name"),
        ("git-upload-pack 'a;id'", "not a repository name"),
        ("git-upload-pack a; id", "takes one repository name"),
        ("git-upload-pack $(id)", "not a repository name"),
        ("git-upload-pack `id`", "not a repository name"),
        ("git-upload-pack ''", "not a repository name"),
        ("git-upload-pack 'a", "quote"),
        ("git-upload-pack 'a\nb'", "control characters"),
        ("git-upload-pack 'a\x00b'", "control characters"),
        ("git-upload-pack " + "a" * 5000, "longer than"),
        ("git-lfs-authenticate org/app download", "git-lfs is not served"),
        ("git-lfs-transfer org/app upload", "git-lfs is not served"),
        ("git-shell", "unknown command"),
        ("git", "unknown command"),
        ("git status", "unknown command"),
        ("/usr/bin/git-upload-pack 'a'", "unknown command"),
        ("scp -t /", "unknown command"),
        ("sh -c 'id'", "unknown command"),
        ("health now", "does not take these arguments"),
        ("status --yaml", "does not take these arguments"),
        ("repo", "usage: repo list"),
        ("repo list all", "usage: repo list"),
        ("repo create", "usage: repo list"),
        ("repo create a b", "usage: repo list"),
        ("repo create a --object-format=md5", "usage: repo list"),
        ("repo create -- a", "usage: repo list"),
        ("repo destroy a", "usage: repo list"),
        ("repo delete --force a", "usage: repo list"),
    ],
)
def test_invalid_commands_are_refused_in_one_line(raw: str, reason: str) -> None:
    """With the reason, and without echoing control characters."""
    with pytest.raises(UsageError) as refusal:
        parse_command(raw)
    assert reason in refusal.value.message
    assert refusal.value.message.isprintable()


@pytest.mark.parametrize(
    ("raw", "service"),
    [
        ("git-receive-pack ''", "receive-pack"),
        ("git receive-pack", "receive-pack"),
        ("git-upload-pack 'a", "upload-pack"),
        ("git-upload-archive", "upload-archive"),
        ("git-lfs-authenticate a", None),
        ("git", None),
        ("upload-pack a", None),
        ("health", None),
        (None, None),
    ],
)
def test_a_git_client_is_known_even_by_a_bad_command(raw: str | None, service: str | None) -> None:
    """It gets the refusal as a pkt-line."""
    assert is_git_service(raw) == service


@pytest.mark.parametrize("name", ["org/app", "org/it's", "org/wow!", "a'b!c'"])
def test_gits_own_quoting_is_understood(name: str) -> None:
    """A word that `git rev-parse --sq-quote` has quoted is read as that word."""
    quoted = subprocess.run(
        ["git", "rev-parse", "--sq-quote", name], capture_output=True, text=True, check=True, timeout=30
    ).stdout.strip()
    if name == "org/app":
        assert parse_command(f"git-upload-pack {quoted}") == GitService("upload-pack", APP)
    else:
        with pytest.raises(UsageError, match="not a repository name"):
            parse_command(f"git-upload-pack {quoted}")
