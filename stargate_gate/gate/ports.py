"""What the gate asks of the rest of the node, and what it works on. node/node.py fills these in.

All protocols, no code: the gate knows neither the elector nor the feed.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from stargate_gate.access.identity import Identity
from stargate_gate.gate.commands import PeerCommand
from stargate_gate.repos.identities import RepositoryIdentity
from stargate_gate.repos.names import RepositoryName


class Channel(Protocol):
    """One exec request of a client. An SSH channel is one; so may be a local socket.

    Every call raises ConnectionError once the client is gone, and in writes also once it has taken
    nothing for the stall limit.
    """

    async def read(self, n: int) -> bytes:
        """Up to `n` bytes that the client sent; b"" at its end of file. Holds the client back."""

    async def write(self, data: bytes) -> None:
        """Send to the client's stdout; returns when it is on its way and not buffered here."""

    async def write_error(self, data: bytes) -> None:
        """Send to the client's stderr, likewise."""

    async def exit(self, status: int) -> None:
        """Send the exit status after everything else, and close; waits for the last byte to be out."""


@dataclass(frozen=True)
class Request:
    """One exec request.

    command       as the client sent it; None for a plain `ssh`
    git_protocol  the client's GIT_PROTOCOL, unchecked; nothing else of its environment is read
    terminal      the client asked for a terminal: it wants lines to end in CR LF
    revoked       the key has been taken away since the connection was made: nothing may run
    """

    identity: Identity
    command: str | None
    git_protocol: str | None
    session_id: str
    terminal: bool = False
    revoked: bool = False


@dataclass(frozen=True)
class GateView:
    """Leadership as of now. `leader_url` is "ssh://host:port"; `term` 0 means unknown.

    stepping_down  this node led and takes no writes any more. `leader` is then the node that takes over,
                   None if there is none or it is not chosen yet
    """

    accepting: bool
    node: str
    leader: str | None
    leader_url: str | None
    leader_alive: bool
    term: int
    reason: str
    stepping_down: bool = False


class Changes(Protocol):
    """What a write tells of itself, and waits for, in the term that it was let in to.

    Positions count the changes of that term. After its end, `replicated` raises and nobody is told.
    """

    async def writing(self, identity: RepositoryIdentity) -> None:
        """Something may be written there from now on.

        Durably noted when this returns, so that a crash cannot hide what was not replicated.

        Raises:
            OSError: it cannot be noted.
            RepositoryGoneError: the repository was deleted.
        """

    async def written(self, identity: RepositoryIdentity) -> int:
        """What `writing` announced has ended, and git is reaped: as `pushed`."""

    async def pushed(self, identity: RepositoryIdentity) -> int:
        """Tell the standbys what it holds now, wherever it lies; the position that covers it.

        Raises:
            TryAgainError: it is not on disk.
            RepositoryGoneError: it was deleted, or another folder has its id.
        """

    async def created(self, identity: RepositoryIdentity) -> int:
        """A new repository is there, durably; the position that covers it."""

    async def deleted(self, name: RepositoryName, identity: str) -> int:
        """The repository of that id is in the trash, durably; the position that covers that."""

    async def replicated(self, identity: str, position: int) -> None:
        """Wait until every member of the sync set has the repository of that id as it was at `position`.

        Returns at once in mode async. The wait has its own limit.

        Raises:
            TryAgainError: not in time, or nobody is there in mode strict.
            NotLeaderError: the term is over.
        """

    def sync_set(self) -> frozenset[str]:
        """The names of the standbys in the sync set now; none where nobody is waited for."""

    def waits_for(self, identity: str, position: int) -> Mapping[str, int]:
        """Whom `replicated` waits for: the standbys' names, and the bytes that each has got of it."""


class Leadership(Protocol):
    """May writes start, and may they go on?"""

    def view(self) -> GateView:
        """As of now, from memory."""

    async def wait_decided(self, limit_s: float) -> GateView:
        """Wait until this node accepts writes, knows a live leader, or lets nobody wait any more.

        The view as it is then, or at the limit.
        """

    def token(self) -> str:
        """The leading lock's token; the pre-receive hook asks for it."""

    def still_leads(self) -> bool:
        """This node leads, provably, at this moment; also while it steps down and takes no new writes."""

    def writing(self) -> AbstractAsyncContextManager[Changes]:
        """The scope of one write, which gets the changes of the term that it is let in to.

        Entered before its process starts, left after it was reaped.

        Raises:
            NotLeaderError: on entering, if writes are not accepted.
            LeadershipLostError: on leaving, if leadership was lost meanwhile; the body was cancelled.
        """


class Peers(Protocol):
    """Runs what only the cluster key may run."""

    def worked_for(self, identity: str, peer_of: str) -> None:
        """Git has used the processor on that repository for the peer at the address `peer_of`."""

    async def run(self, command: PeerCommand, channel: Channel, peer_of: str) -> int:
        """Serve one peer at the address `peer_of`; returns the exit status."""


class Meter(Protocol):
    """Counts what happened."""

    def session_ended(self, command: str, exit_status: int | None, duration_s: float) -> None:
        """One request: its program, "greeting" for a plain `ssh`; None: the client was gone before."""

    def push_refused(self, reason: str) -> None:
        """Stargate itself refused a push; `reason` is one of a few fixed words."""


class Reports(Protocol):
    """How the node does, from memory."""

    def healthy(self) -> tuple[bool, str]:
        """Does it work; one line for people."""

    def ready(self) -> tuple[bool, str]:
        """Does it lead and take writes; one line for people."""

    def status(self, *, as_json: bool = False) -> tuple[int, str]:
        """The exit status of `status` (0 well, 1 warning, 2 critical, 3 unknown), and the report."""
