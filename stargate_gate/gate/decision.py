"""What may be done: the gate's two decisions, as values. Pure.

First `authorise`: what the identity may ask for at all. Then `gate`: whether this node takes writes.
A refusal is an error that nobody has raised yet: its exit code is for programs, its line for people.
"""

from stargate_gate.access.identity import Identity
from stargate_gate.errors import NotAllowedError, NotLeaderError, StargateError
from stargate_gate.gate.commands import (
    Command,
    GitService,
    PeerCommand,
    RepoCreate,
    RepoDelete,
    unknown_command,
)
from stargate_gate.gate.ports import GateView
from stargate_gate.repos.names import RepositoryName


def authorise(identity: Identity, command: Command) -> StargateError | None:
    """None if `identity` may ask for `command`. Says nothing of leaders."""
    match command:
        case PeerCommand(words=words) if identity.access != "peer":
            return unknown_command(words[0])
        case GitService(writes=True) if identity.access not in {"write", "admin", "peer"}:
            return _not_allowed(identity, "push")
        case RepoCreate() | RepoDelete() if identity.access != "admin":
            return _not_allowed(identity, "create or delete repositories")
    return None


def revoked() -> NotAllowedError:
    """The refusal of a client whose key has been taken away while it was connected."""
    return NotAllowedError("not allowed: your key may not log in any more; ask an operator")


def _not_allowed(identity: Identity, deed: str) -> NotAllowedError:
    return NotAllowedError(
        f"not allowed: {identity.user} has {identity.access} access and may not {deed}; ask an operator"
    )


def writes(command: Command) -> bool:
    """Whether `command` has to pass the gate."""
    return isinstance(command, RepoCreate | RepoDelete) or (
        isinstance(command, GitService) and command.writes
    )


def gate(
    view: GateView, address: str | None = None, name: RepositoryName | None = None
) -> NotLeaderError | None:
    """None if this node takes writes. The words "not leader" are always in the message."""
    if view.accepting:
        return None
    return NotLeaderError(not_leader_message(view, address, name))


def not_leader_message(view: GateView, address: str | None = None, name: RepositoryName | None = None) -> str:
    """One line: what this node is, who leads, and where to go. No operator detail.

    `address` is what follows the leader, as host:port; `name` is the repository that was asked for: with
    both of them the line has the URL that users should have.
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
    """ssh://host:port as git users write it."""
    return url if "@" in url else url.replace("ssh://", "ssh://git@", 1)
