"""Where this node listens, and what its SSH server knows of its users.

The SSH server is built late (it needs the gate, and the gate needs nearly everything else), and its addresses
are known later still (with port 0 the kernel chooses one). But the election, the mirror and the status report
tell others of both. So they get this object, which is made first and filled in twice: `serve_with` when the
server is built, and `listen_on` when the node listens. A node has no other late bindings.
"""

from collections.abc import Sequence

from stargate_gate import __version__
from stargate_gate.config.endpoint import Endpoint
from stargate_gate.config.model import Config
from stargate_gate.election.status import Advertised
from stargate_gate.gate.ssh.server import SshServer
from stargate_gate.node.settings import mode_in_force
from stargate_gate.replication.wire.about import Profile, settings_of
from stargate_gate.status import ExpiringKey


class Listeners:
    """One per node. `fingerprints` are those of its host keys."""

    def __init__(self, config: Config, fingerprints: tuple[str, ...]) -> None:
        self._config = config
        self._fingerprints = fingerprints
        self._server: SshServer | None = None
        self._ssh: tuple[Endpoint, ...] = ()
        self._http: tuple[Endpoint, ...] = ()

    def serve_with(self, server: SshServer) -> None:
        """The SSH server is built."""
        self._server = server

    def listen_on(self, ssh: Sequence[tuple[str, int]], http: Sequence[Endpoint]) -> None:
        """The node listens: its SSH addresses, at least one, and its HTTP addresses."""
        self._ssh = tuple(Endpoint(*one) for one in ssh)
        self._http = tuple(http)

    @property
    def ssh(self) -> tuple[Endpoint, ...]:
        """Where SSH connections are taken; empty before the node listens."""
        return self._ssh

    @property
    def http(self) -> tuple[Endpoint, ...]:
        """The same for HTTP."""
        return self._http

    def bound(self) -> tuple[tuple[str, int], ...]:
        """As `ssh`, as (host, port)."""
        return tuple((one.host, one.port) for one in self._ssh)

    def advertised(self) -> Advertised:
        """What the cluster record says of this node when it leads."""
        return Advertised(
            ssh=str(self._reachable()),
            http=str(self._http[0]) if self._http else "",
            host_keys=self._fingerprints,
            mode=mode_in_force(self._config),
        )

    def profile(self) -> Profile:
        """What this node tells its peers of itself."""
        settings = settings_of(
            self._config,
            version=__version__,
            host_keys=self._fingerprints,
            user_keys=self._serving().keys_digest(),
        )
        return Profile(str(self._reachable()), settings)

    def problems(self) -> tuple[str, ...]:
        """What operators should know of authorized_keys."""
        return self._serving().problems

    def expiring_keys(self, before: float) -> tuple[ExpiringKey, ...]:
        """Users whose last key ends before that time, in seconds since 1970."""
        return self._serving().expiring_keys(before)

    def locked_out(self) -> str | None:
        """Why nobody can log in, in one line; None if somebody can."""
        return self._serving().locked_out

    def _reachable(self) -> Endpoint:
        """Where peers reach this node."""
        return self._config.ssh.advertise or self._ssh[0]

    def _serving(self) -> SshServer:
        if self._server is None:
            raise RuntimeError("the SSH server is not built yet")
        return self._server
