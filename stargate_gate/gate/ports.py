"""What the gate needs from the rest of the node, as protocols. node/node.py passes the implementations.

So the gate knows neither the election nor the replication.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from stargate_gate.access.identity import Identity
from stargate_gate.gate.commands import GateView, PeerCommand
from stargate_gate.repos.identities import RepositoryIdentity
from stargate_gate.repos.names import RepositoryName


class Channel(Protocol):
    """The streams of one exec request: an SSH channel, or a local socket.

    Each call raises ConnectionError once the client is gone; writes also if it has taken nothing for the
    stall limit.
    """

    async def read(self, n: int) -> bytes:
        """Up to `n` bytes from the client; b"" at its end of file. Lets the client send as many again."""

    async def write(self, data: bytes) -> None:
        """Send to the client's stdout. Returns when it was sent and is not buffered here."""

    async def write_error(self, data: bytes) -> None:
        """Send to the client's stderr. Returns as `write`."""

    async def exit(self, status: int) -> None:
        """Send the exit status after everything else, and close. Waits until the last byte was sent."""


@dataclass(frozen=True)
class Request:
    """One exec request.

    command       as the client sent it; None for a plain `ssh`
    git_protocol  the client's GIT_PROTOCOL, not checked; nothing else of its environment is read
    terminal      the client asked for a terminal, so lines have to end in CR LF
    revoked       the key was removed since the connection was made, so nothing may run
    """

    identity: Identity
    command: str | None
    git_protocol: str | None
    session_id: str
    terminal: bool = False
    revoked: bool = False


class Changes(Protocol):
    """How one write announces its changes to the standbys and waits for them, in the term it was let in to.

    Positions count the changes of that term. After its end `replicated` raises, and no standby gets anything.
    """

    async def writing(self, identity: RepositoryIdentity) -> None:
        """Called before anything is written there.

        It is noted on disk when this returns, so that a crash cannot hide values that no standby has.

        Raises:
            OSError: it cannot be noted.
            RepositoryGoneError: the repository was deleted.
        """

    async def written(self, identity: RepositoryIdentity) -> int:
        """Called after `writing` when git has been reaped. Otherwise as `pushed`."""

    async def pushed(self, identity: RepositoryIdentity) -> int:
        """Send the standbys what the repository holds now, even if it was moved; the position of that.

        Raises:
            TryAgainError: it is not on disk.
            RepositoryGoneError: it was deleted, or another folder has its id.
        """

    async def created(self, identity: RepositoryIdentity) -> int:
        """A new repository is on disk. Returns the position of its creation."""

    async def deleted(self, name: RepositoryName, identity: str) -> int:
        """The repository with that id is in the trash, on disk. Returns the position of its deletion."""

    async def replicated(self, identity: str, position: int) -> None:
        """Wait until every member of the sync set has the repository with that id as of `position`.

        Returns at once in mode async. The time of the wait is limited by its own settings.

        Raises:
            TryAgainError: not in time; or, in mode strict, there is no member.
            NotLeaderError: the term is over.
        """

    def sync_set(self) -> frozenset[str]:
        """The names of the standbys in the sync set now; empty if no standby is waited for."""

    def waits_for(self, identity: str, position: int) -> Mapping[str, int]:
        """The standbys that `replicated` waits for: name → bytes that it has received of the change."""


class Leadership(Protocol):
    """Whether this node leads."""

    def view(self) -> GateView:
        """As of now, from memory."""

    async def wait_decided(self, limit_s: float) -> GateView:
        """Wait until this node takes writes, or knows a live leader, or is not to let requests wait any more.

        Returns the view at that moment, or at the limit.
        """

    def token(self) -> str:
        """The leading lock's token, which the pre-receive hook requires."""

    def still_leads(self) -> bool:
        """Whether this node can prove now that it leads. It may do so while it steps down, too."""

    def writing(self) -> AbstractAsyncContextManager[Changes]:
        """The scope of one write, with the changes of the term that the write is let in to.

        Entered before the process of the write starts, left after the process was reaped.

        Raises:
            NotLeaderError: on entering, if this node takes no writes.
            LeadershipLostError: on leaving, if leadership was lost; the body was cancelled then.
        """


class Peers(Protocol):
    """Serves other nodes of the cluster."""

    def worked_for(self, identity: str, peer_of: str) -> None:
        """Git has used the processor on that repository, for the peer at the address `peer_of`."""

    async def run(self, command: PeerCommand, channel: Channel, peer_of: str) -> int:
        """Serve one command of the peer at the address `peer_of`; returns the exit status."""


class Meter(Protocol):
    """Counts requests, for metrics."""

    def session_ended(self, command: str, exit_status: int | None, duration_s: float) -> None:
        """One request has ended. `command` is from `program_of`; no status: the client was gone before."""

    def push_refused(self, reason: str) -> None:
        """The gate has refused a push. `reason` is one of a few fixed words."""


class Reports(Protocol):
    """The state of this node, from memory."""

    def healthy(self) -> tuple[bool, str]:
        """Whether this node works, and one line for people."""

    def ready(self) -> tuple[bool, str]:
        """Whether this node leads and takes writes, and one line for people."""

    def status(self, *, as_json: bool = False) -> tuple[int, str]:
        """The exit status of `status` (0 well, 1 warning, 2 critical, 3 unknown), and the report."""
