"""A listener with a handler that answers what it was asked, and clients of it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import asyncssh

from stargate_gate.access.host_keys import load_or_make_host_keys, public_key_of
from stargate_gate.gate.ports import Channel, Request
from stargate_gate.gate.ssh.server import ServerSettings, SshServer
from tests.support.clients import Done, run, ssh_argv
from tests.support.cluster import make_key

LIMIT_S = 20.0


class Mirror:
    """Answers each request with its content; `hold` makes it wait."""

    def __init__(self) -> None:
        self.hold: asyncio.Event | None = None
        self.started = asyncio.Event()
        self.ended = asyncio.Event()

    async def handle(self, request: Request, channel: Channel) -> int:
        """One line of JSON on stdout, one on stderr, the status from the command."""
        self.started.set()
        try:
            if self.hold:
                await self.hold.wait()
            await channel.write(json.dumps(asdict(request)).encode() + b"\n")
            await channel.write_error(b"done\n")
            words = (request.command or "").split()
            status = int(words[1]) if words[:1] == ["exit"] else 0
            await channel.exit(status)
        finally:
            self.ended.set()
        return 0


class Site:
    """A folder with keys, and the settings of a server over it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.key = make_key(root / "alice", comment="alice@home")
        self.stranger = make_key(root / "mallory", comment="mallory")
        self.cluster = make_key(root / "cluster")
        self.authorized = root / "authorized_keys"
        self.allow("")
        self.settings = ServerSettings(
            listen=(("127.0.0.1", 0),),
            authorized_keys=self.authorized,
            cluster_key=public_key_of(self.cluster),
        )
        self.handler = Mirror()
        self.port = 0

    def allow(self, options: str, *keys: Path) -> None:
        """Write authorized_keys: each key (default: alice's) with these options."""
        lines = [f"{options} {key.with_suffix('.pub').read_text()}".lstrip() for key in keys or (self.key,)]
        self.authorized.write_text("".join(lines))

    @asynccontextmanager
    async def serve(self, **changes: Any) -> AsyncIterator[SshServer]:
        """A running server."""
        state = self.root / "state"
        state.mkdir(exist_ok=True)
        server = SshServer(self.handler, load_or_make_host_keys(state), replace(self.settings, **changes))
        ((_, self.port),) = await server.start()
        try:
            yield server
        finally:
            await server.close()

    async def ssh(
        self, *command: str, key: Path | None = None, login: str = "git", o: tuple[str, ...] = ()
    ) -> Done:
        """OpenSSH's client."""
        return await run(*ssh_argv(self.port, key or self.key, *o, login=login), *command)

    def connect(self, key: Path | None = None) -> Any:
        """An asyncssh client, to await or to enter."""
        return asyncssh.connect(
            "127.0.0.1",
            self.port,
            username="git",
            client_keys=[key or self.key],
            known_hosts=None,
            config=None,
            agent_path=None,
        )

    async def ask(self, *command: str, **options: Any) -> dict[str, Any]:
        """What the handler was told of one successful request."""
        done = await self.ssh(*command, **options)
        assert done.status == 0, done
        told: dict[str, Any] = json.loads(done.stdout)
        return told


async def until(probe: Callable[[], bool]) -> None:
    """Wait for what no event tells of."""
    async with asyncio.timeout(LIMIT_S):
        while not probe():
            await asyncio.sleep(0.01)


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


def connections(server: SshServer) -> int:
    """Open ones, logged in or not, those that wait for a place or for a PROXY header included."""
    queue = server._login_queue
    unauthenticated = len(queue._placed) + len(queue._peers) + len(queue._waiting)
    return len(server._awaiting_header) + unauthenticated + len(server._authenticated)
