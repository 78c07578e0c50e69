"""What a client asks for, and whether it may have it: three decisions about one SSH exec request. Pure.

    parse_command   which command is it?                          a bad one is refused with 64
    authorise       may this identity ask for it at all?          if not: 77
    gate            does this node take writes?                   if not: 9, "not leader"

A command is split into words with the quoting that git clients use (sq_quote_buf in git's quote.c). Nothing
in it is ever given to a shell. `authorise` and `gate` return the error that the caller raises: its exit code
is for programs, its message for people.
"""

import difflib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from stargate_gate.access.identity import Identity
from stargate_gate.errors import NotAllowedError, NotLeaderError, StargateError, UsageError
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
    """Whether this node works."""


@dataclass(frozen=True)
class Ready:
    """Whether this node leads and takes writes."""


@dataclass(frozen=True)
class ShowStatus:
    """The status of this node, for people or as JSON."""

    json: bool = False


@dataclass(frozen=True)
class RepoList:
    """The names of all repositories, one a line."""


@dataclass(frozen=True)
class RepoCreate:
    """A new, empty repository."""

    name: RepositoryName
    object_format: ObjectFormat = "sha1"


@dataclass(frozen=True)
class RepoDelete:
    """Moves a repository into the trash."""

    name: RepositoryName


@dataclass(frozen=True)
class PeerCommand:
    """A command that only the cluster's own key may run, as its words: see PEER_COMMANDS."""

    words: tuple[str, ...]


Command: TypeAlias = (
    Welcome | GitService | Health | Ready | ShowStatus | RepoList | RepoCreate | RepoDelete | PeerCommand
)

SERVICES = ("upload-pack", "receive-pack", "upload-archive")
KNOWN_WORDS = (*(f"git-{service}" for service in SERVICES), "health", "ready", "status", "repo", "help")
PEER_COMMANDS = ("stargate-feed", "stargate-refs", "stargate-whoami")


def is_git_service(raw: str | None) -> Service | None:
    """The git service that `raw` asks for, even with bad arguments: its refusal has to be a pkt-line."""
    words = (raw or "").split(None, 2)
    first = words[0] if words else ""
    program = f"git-{words[1]}" if first == "git" and len(words) > 1 else first
    service = program.removeprefix("git-")
    return cast("Service", service) if program.startswith("git-") and service in SERVICES else None


def program_of(raw: str | None) -> str:
    """The program that `raw` asks for, for metrics; "greeting" for a plain `ssh`. Never raises."""
    if (service := is_git_service(raw)) is not None:
        return f"git-{service}"
    words = (raw or "").split(None, 1)
    return words[0] if words else "greeting"


def parse_command(raw: str | None) -> Command:
    """The command that `raw` is; None, blank or "help" is a plain `ssh`.

    Raises:
        UsageError: it is unknown, or its arguments are invalid. The message is for the client.
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
    """The refusal of a program that there is not, or not for this client."""
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


@dataclass(frozen=True)
class GateView:
    """Who leads, as this node knows it now.

    accepting      this node takes writes
    leader         the node that leads, if this node knows it
    leader_url     "ssh://host:port" of `leader`
    leader_alive   this node hears from `leader` now
    stepping_down  this node has led and takes no writes any more. `leader` is then the node that takes over;
                   None if there is none, or it has not been chosen yet
    """

    accepting: bool
    node: str
    leader: str | None
    leader_url: str | None
    leader_alive: bool
    stepping_down: bool = False


def authorise(identity: Identity, command: Command) -> StargateError | None:
    """Why `identity` may not ask for `command`; None if it may. Who leads does not matter here."""
    match command:
        case PeerCommand(words=words) if identity.access != "peer":
            return unknown_command(words[0])
        case GitService(writes=True) if identity.access not in {"write", "admin", "peer"}:
            return _not_allowed(identity, "push")
        case RepoCreate() | RepoDelete() if identity.access != "admin":
            return _not_allowed(identity, "create or delete repositories")
    return None


def revoked() -> NotAllowedError:
    """The refusal of a client whose key was removed while it was connected."""
    return NotAllowedError("not allowed: your key may not log in any more; ask an operator")


def _not_allowed(identity: Identity, action: str) -> NotAllowedError:
    return NotAllowedError(
        f"not allowed: {identity.user} has {identity.access} access and may not {action}; ask an operator"
    )


def writes(command: Command) -> bool:
    """Whether `command` changes something, and so has to pass the gate."""
    return isinstance(command, RepoCreate | RepoDelete) or (
        isinstance(command, GitService) and command.writes
    )


def gate(
    view: GateView, address: str | None = None, name: RepositoryName | None = None
) -> NotLeaderError | None:
    """Why this node takes no writes; None if it takes them. "not leader" is always in the message."""
    if view.accepting:
        return None
    return NotLeaderError(not_leader_message(view, address, name))


def not_leader_message(view: GateView, address: str | None = None, name: RepositoryName | None = None) -> str:
    """One line for clients: what this node is, who leads, and where to go.

    address  the address that follows the leader, as host:port
    name     the repository that was asked for. With both, the line has the URL that the user should use
    """
    if view.stepping_down and not view.leader_alive:
        then = f"{view.leader} takes over: push again" if view.leader else "try again"
        return f"not leader: {view.node} is stepping down; {then}"
    if view.leader == view.node:
        return f"not leader: {view.node} takes no writes at the moment, try again"
    if view.leader is None or not view.leader_alive:
        return f"not leader: {view.node} is a standby; no leader is known yet, try again"
    path = "" if name is None else f"/{name}"
    own = _with_login(view.leader_url) if view.leader_url else ""
    at = "" if not own else f" at {own}" if address else f" at {own}{path}"
    where = "" if not address else f"; {'push to' if path else 'use'} ssh://git@{address}{path}"
    return f"not leader: {view.node} is a standby; the leader is {view.leader}{at}{where}"


def _with_login(url: str) -> str:
    """`url` with the login name, as git users write it."""
    return url if "@" in url else url.replace("ssh://", "ssh://git@", 1)
