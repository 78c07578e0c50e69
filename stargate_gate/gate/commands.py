"""What a client asks for: the raw command of an SSH exec request as one frozen value. Pure.

The command is split into words with the quoting that git clients use (sq_quote_buf in git's quote.c);
nothing in it is ever given to a shell.
"""

import difflib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from stargate_gate.errors import UsageError
from stargate_gate.repos.names import RepositoryName, parse_repository_name

Service: TypeAlias = Literal["upload-pack", "receive-pack", "upload-archive"]
ObjectFormat: TypeAlias = Literal["sha1", "sha256"]

MAX_COMMAND_BYTES = 4096  # a repository name has 255 bytes at most
MAX_SHOWN = 100  # characters of an unknown command
HINT = "run ssh without a command to see what there is"
WELCOME_WORDS = ("", "help", "--help", "-h", "?")


@dataclass(frozen=True)
class Welcome:
    """Plain `ssh`, without a command."""


@dataclass(frozen=True)
class GitService:
    """One of the three programs that git clients run on a server."""

    service: Service
    name: RepositoryName

    @property
    def writes(self) -> bool:
        """Whether this changes the repository."""
        return self.service == "receive-pack"


@dataclass(frozen=True)
class Health:
    """Does this node work?"""


@dataclass(frozen=True)
class Ready:
    """Does this node lead and take writes?"""


@dataclass(frozen=True)
class ShowStatus:
    """The status page, for people or as JSON."""

    json: bool = False


@dataclass(frozen=True)
class RepoList:
    """All names, one a line."""


@dataclass(frozen=True)
class RepoCreate:
    """A new, empty repository."""

    name: RepositoryName
    object_format: ObjectFormat = "sha1"


@dataclass(frozen=True)
class RepoDelete:
    """Into the trash."""

    name: RepositoryName


@dataclass(frozen=True)
class PeerCommand:
    """What only the cluster's own key may run: feed, refs of a repository, who this is."""

    words: tuple[str, ...]


Command: TypeAlias = (
    Welcome | GitService | Health | Ready | ShowStatus | RepoList | RepoCreate | RepoDelete | PeerCommand
)

SERVICES = ("upload-pack", "receive-pack", "upload-archive")
KNOWN_WORDS = (*(f"git-{service}" for service in SERVICES), "health", "ready", "status", "repo", "help")
PEER_COMMANDS = ("stargate-feed", "stargate-refs", "stargate-whoami")


def is_git_service(raw: str | None) -> Service | None:
    """Which git service `raw` asks for, however badly: git clients want refusals as pkt-lines."""
    words = (raw or "").split(None, 2)
    first = words[0] if words else ""
    program = f"git-{words[1]}" if first == "git" and len(words) > 1 else first
    service = program.removeprefix("git-")
    return cast("Service", service) if program.startswith("git-") and service in SERVICES else None


def program_of(raw: str | None) -> str:
    """The program that `raw` asks for, however badly; "greeting" for a plain `ssh`. For counting."""
    if (service := is_git_service(raw)) is not None:
        return f"git-{service}"
    words = (raw or "").split(None, 1)
    return words[0] if words else "greeting"


def parse_command(raw: str | None) -> Command:
    """The command that `raw` is; None, blank or "help" is a plain `ssh`.

    Raises:
        UsageError: it is unknown, or its arguments cannot be meant; the message is for the client.
    """
    if raw is None or raw.strip() in WELCOME_WORDS:
        return Welcome()
    if len(raw.encode("utf-8", "surrogateescape")) > MAX_COMMAND_BYTES:
        raise UsageError(f"the command is longer than {MAX_COMMAND_BYTES} bytes")
    if any("\udc80" <= character <= "\udcff" for character in raw):
        raise UsageError(
            "the command is not UTF-8: names have ASCII letters here; let your client speak UTF-8"
        )
    if not raw.isprintable():
        raise UsageError("the command holds control characters")
    try:
        words = shlex.split(raw)
    except ValueError as error:
        raise UsageError("the command has a quote that is not closed") from error
    if words[0] == "git" and len(words) > 1:
        words = [f"git-{words[1]}", *words[2:]]
    return _parse_words(words[0], words[1:])


SIMPLE_COMMANDS: Mapping[tuple[str, ...], Command] = {
    ("health",): Health(),
    ("ready",): Ready(),
    ("status",): ShowStatus(),
    ("status", "--json"): ShowStatus(json=True),
}


def _parse_words(program: str, arguments: list[str]) -> Command:
    simple = SIMPLE_COMMANDS.get((program, *arguments))
    if simple is not None:
        return simple
    if program.startswith("git-"):
        return _parse_git(program, arguments)
    if program == "repo":
        return _parse_repo(arguments)
    if program in PEER_COMMANDS:
        return PeerCommand((program, *arguments))
    if (program,) in SIMPLE_COMMANDS:
        raise UsageError(f"{program} does not take these arguments; {HINT}")
    raise unknown_command(program)


def _parse_git(program: str, arguments: list[str]) -> Command:
    service = program.removeprefix("git-")
    if service in SERVICES:
        if len(arguments) != 1:
            raise UsageError(f"{program} takes one repository name and nothing else")
        return GitService(cast("Service", service), parse_repository_name(arguments[0]))
    if program.startswith("git-lfs-"):
        raise UsageError(
            "git-lfs is not served here: push without LFS (git lfs uninstall), or use another host"
        )
    raise unknown_command(program)


def unknown_command(program: str) -> UsageError:
    """The refusal of a program that is not served to this client."""
    shown = program[:MAX_SHOWN]
    close = difflib.get_close_matches(shown, KNOWN_WORDS, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    return UsageError(f"unknown command {shown!r}; {meant}{HINT}")


def _parse_repo(arguments: list[str]) -> Command:
    names = [word for word in arguments[1:] if not word.startswith("--")]
    options = [word for word in arguments[1:] if word.startswith("--")]
    match (arguments[:1], names, options):
        case (["list"], [], []):
            return RepoList()
        case (["create"], [name], []):
            return RepoCreate(parse_repository_name(name))
        case (["create"], [name], ["--object-format=sha1" | "--object-format=sha256" as option]):
            return RepoCreate(parse_repository_name(name), cast("ObjectFormat", option.partition("=")[2]))
        case (["delete"], [name], []):
            return RepoDelete(parse_repository_name(name))
    raise UsageError("usage: repo list | repo create NAME [--object-format=sha256] | repo delete NAME")
