"""One request from its first byte to its exit status: `Gate.handle`. Independent of asyncssh.

parse (64) → authorise (77) → gate (9) → find or create (66) → run git → replicate (75) → gate again (9)
→ release git's report → exit status
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from structlog.contextvars import bound_contextvars

from stargate_gate.access.identity import Identity
from stargate_gate.aio.tasks import finish
from stargate_gate.errors import (
    GitFailedError,
    LeadershipLostError,
    NoSuchRepositoryError,
    StargateError,
    UnavailableError,
)
from stargate_gate.exitcodes import ExitCode
from stargate_gate.gate import decision
from stargate_gate.gate.admission import Pool, Shares
from stargate_gate.gate.admission_queue import Turns
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
    program_of,
)
from stargate_gate.gate.ports import Changes, Channel, Leadership, Meter, Peers, Reports, Request
from stargate_gate.gate.push.acknowledge import Push, reason_of, vouch, without_change
from stargate_gate.gate.push.pumps import Answer, PushPumps
from stargate_gate.gate.relay import relay
from stargate_gate.gate.replies import refuse, say, welcome
from stargate_gate.printable import printable
from stargate_gate.repos.git import git_environment, service_argv, valid_git_protocol
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.process import GitProcess, GitProcesses
from stargate_gate.repos.repository import Repository
from stargate_gate.repos.store import Store

log = structlog.get_logger()

WAITING_EVERY_S = 2.0  # a line of progress for a push that waits for its replicas
CPU_EVERY_S = 1.0  # how often it is looked whether git works for a peer
MAX_LOGGED_COMMAND = 200  # characters
REASONS = {  # why a push was refused, as it is counted
    ExitCode.NOT_LEADER: "not_leader",
    ExitCode.NOT_ALLOWED: "not_allowed",
    ExitCode.NO_REPOSITORY: "no_repository",
    ExitCode.USAGE: "usage",
    ExitCode.UNAVAILABLE: "unavailable",
    ExitCode.TRY_AGAIN: "not_replicated",
}


@dataclass(frozen=True)
class GateSettings:
    """What of the configuration concerns requests.

    hooks  the folder that holds pre-receive
    spill  a folder for unnamed files: what is too long for the memory, for as long as a request takes
    handover_wait_s, drain_s  how long a push waits for a leader; the second comes on top of the first
           where this node is stepping down
    shares, queue_wait_s  who may run at the same time, and how long the others wait for it
    address  what users put in their URLs, as host:port; None: this node's own
    """

    hooks: Path
    spill: Path
    create_on_push: bool = True
    handover_wait_s: float = 5.0
    drain_s: float = 8.0
    shares: Shares = field(default_factory=Shares)
    queue_wait_s: float = 5.0
    address: str | None = None


@dataclass
class _Visit:
    """One request while it is served: its channel, counted, and what its log line will say."""

    request: Request
    channel: Channel
    started: float = field(default_factory=time.monotonic)
    bytes_in: int = 0
    bytes_out: int = 0
    repository: str | None = None
    refusal: str | None = None
    push: Push | None = None

    @property
    def duration_s(self) -> float:
        return time.monotonic() - self.started

    async def read(self, n: int) -> bytes:
        data = await self.channel.read(n)
        self.bytes_in += len(data)
        return data

    async def write(self, data: bytes) -> None:
        self.bytes_out += len(data)
        await self.channel.write(data)

    async def write_error(self, data: bytes) -> None:
        await self.channel.write_error(data)

    async def exit(self, status: int) -> None:
        await self.channel.exit(status)

    async def say(self, text: str) -> None:
        await say(self, text, terminal=self.request.terminal)

    def log(self, status: int | None, ended: str) -> None:
        """The one line per session. `exit` is None when the client was gone before its status."""
        log.info(
            "session",
            user=self.request.identity.user,
            key=self.request.identity.fingerprint or None,
            source=self.request.identity.source,
            command=printable(self.request.command or "", MAX_LOGGED_COMMAND),
            repository=self.repository,
            exit=status,
            ended=ended,
            refusal=self.refusal,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            duration_s=round(self.duration_s, 3),
        )


class Gate:
    """The front door's decisions and deeds. One per node; `handle` runs many times at once."""

    def __init__(  # noqa: PLR0917  # node/node.py passes its parts in this order
        self,
        store: Store,
        processes: GitProcesses,
        leadership: Leadership,
        peers: Peers,
        reports: Reports,
        meter: Meter,
        settings: GateSettings,
    ) -> None:
        self._store = store
        self._processes = processes
        self._leadership = leadership
        self._peers = peers
        self._reports = reports
        self._meter = meter
        self._settings = settings
        self._turns = Turns(settings.shares, settings.queue_wait_s)
        self._peers_running = 0

    @property
    def running(self) -> int:
        """Requests that work on repositories at this moment, peers' included."""
        return self._turns.running + self._peers_running

    async def handle(self, request: Request, channel: Channel) -> int | None:
        """Serve one request to its end; None if the client was gone before its exit status.

        Never raises but CancelledError (the client is gone, or the node stops); then everything
        that ran for the request has ended and was reaped.
        """
        visit = _Visit(request, channel)
        status: int | None = None
        ended = "cancelled"
        with bound_contextvars(session=request.session_id):
            try:
                answer = await self._answer(visit)
                await visit.exit(answer)
                status, ended = answer, "exit"
            except ConnectionError as error:
                ended = str(error) or "the client is gone"
            finally:
                visit.log(status, ended)
                self._meter.session_ended(program_of(request.command), status, visit.duration_s)
        return status

    async def _answer(self, visit: _Visit) -> int:
        """The exit status, after all output; refusals and failures are said here."""
        try:
            return await self._serve(visit)
        except GitFailedError as error:
            log.exception("session_failed", error=str(error))
            refusal: StargateError = _internal(visit.request)
        except StargateError as error:
            refusal = error
        except ConnectionError:
            raise
        except TimeoutError:
            refusal = UnavailableError("nothing was sent either way for too long; the session is ended")
        except Exception as error:
            log.exception("session_failed", error=repr(error))
            refusal = _internal(visit.request)
        visit.refusal = refusal.message
        service = is_git_service(visit.request.command)
        if service == "receive-pack":
            self._meter.push_refused(REASONS.get(refusal.exit_code, "other"))
        await refuse(visit, refusal, service, begun=visit.bytes_out > 0, terminal=visit.request.terminal)
        return refusal.exit_code

    async def _serve(self, visit: _Visit) -> int:
        if visit.request.revoked:
            raise decision.revoked()
        command = parse_command(visit.request.command)
        if isinstance(command, GitService | RepoCreate | RepoDelete):
            visit.repository = str(command.name)
        if refusal := decision.authorise(visit.request.identity, command):
            raise refusal
        if decision.writes(command):
            await self._pass_gate(command)
        return await self._run(command, visit)

    async def _pass_gate(self, command: Command) -> None:
        """Return if this node takes writes. A node that knows no live leader waits for one."""
        view = self._leadership.view()
        if not view.accepting and not view.leader_alive:
            limit_s = self._settings.handover_wait_s
            if view.stepping_down:
                limit_s += self._settings.drain_s
            log.debug("push_waits_for_leader", limit_s=limit_s)
            view = await self._leadership.wait_decided(limit_s)
        name = command.name if isinstance(command, GitService) else None
        if refusal := decision.gate(view, self._settings.address, name):
            raise refusal

    async def _run(self, command: Command, visit: _Visit) -> int:
        match command:
            case Welcome():
                await visit.say(welcome(visit.request.identity, self._leadership.view().node))
            case Health():
                return await self._report(visit, self._reports.healthy(), ExitCode.UNAVAILABLE)
            case Ready():
                return await self._report(visit, self._reports.ready(), ExitCode.NOT_LEADER)
            case ShowStatus(json=json):
                level, text = self._reports.status(as_json=json)
                await visit.say(text)
                return level
            case PeerCommand():
                return await self._peers.run(command, visit, visit.request.identity.source)
            case _:
                return await self._run_counted(command, visit)
        return ExitCode.OK

    async def _report(self, visit: _Visit, report: tuple[bool, str], otherwise: ExitCode) -> int:
        well, line = report
        if well:
            await visit.say(line)
            return ExitCode.OK
        visit.refusal = line
        await refuse(visit, StargateError(line), service=None, begun=False, terminal=visit.request.terminal)
        return otherwise

    async def _run_counted(self, command: Command, visit: _Visit) -> int:
        """What costs processes and disk: bounded. Peers always come in: the sync set depends on it."""
        async with self._turn(visit.request.identity, "push" if decision.writes(command) else "read"):
            if decision.writes(command):
                await self._pass_gate(command)  # it may have closed while this one waited for its turn
            match command:
                case GitService(writes=True):
                    return await self._receive_pack(command, visit)
                case GitService():
                    return await self._read_service(command, visit)
                case RepoCreate():
                    await self._create(command)
                case RepoDelete():
                    await self._delete(command)
                case RepoList():
                    names = sorted(str(repository.name) for repository in await self._store.list())
                    if names:
                        await visit.say("\n".join(names))
            return ExitCode.OK

    @asynccontextmanager
    async def _turn(self, identity: Identity, pool: Pool) -> AsyncIterator[None]:
        if identity.access != "peer":
            async with self._turns.turn(identity, pool):
                yield
            return
        self._peers_running += 1
        try:
            yield
        finally:
            self._peers_running -= 1

    async def _read_service(self, command: GitService, visit: _Visit) -> int:
        repository = await self._existing(command.name)
        process = await self._processes.start(
            self._argv(command, repository, visit), env=self._environment(visit), writes=None
        )
        if visit.request.identity.access != "peer":
            return await relay(process, visit)
        identity = self._store.register.identity(repository).id
        watch = asyncio.create_task(self._watch(process, identity, visit), name="watch-cpu")
        try:
            return await relay(process, visit)
        finally:
            watch.cancel()

    async def _watch(self, process: GitProcess, identity: str, visit: _Visit) -> None:
        """Git may work for a peer for minutes before it sends a byte: it is told that this is no silence."""
        before = 0.0

        def used(cpu_s: float) -> None:
            nonlocal before
            if cpu_s > before:
                self._peers.worked_for(identity, visit.request.identity.source)
            before = max(before, cpu_s)

        await process.watch_cpu(CPU_EVERY_S, used)

    async def _receive_pack(self, command: GitService, visit: _Visit) -> int:
        answer = Answer()
        try:
            async with self._leadership.writing() as changes:
                return await self._push(command, visit, answer, changes)
        except LeadershipLostError as error:
            await answer.revise(visit, reason_of(error))
            if visit.push is None or await visit.push.changed_nothing():
                raise without_change(error) from error
            raise
        except StargateError as error:
            await answer.revise(visit, reason_of(error))
            raise

    async def _push(self, command: GitService, visit: _Visit, answer: Answer, changes: Changes) -> int:
        """Run receive-pack. If it is killed, `GitProcesses` sweeps what it left behind."""
        repository, position = await self._find_or_create(command.name, changes)
        peer = visit.request.identity.access == "peer"
        push = Push(repository, position, self._store, changes, self._leadership, waits=not peer)
        visit.push = push
        process = await self._processes.start(
            self._argv(command, repository, visit),
            env=self._environment(visit, STARGATE_GATE_TOKEN=self._leadership.token()),
            writes=repository.path,
        )
        try:
            status = await PushPumps(process, visit, push, answer, self._settings.spill).run()
        finally:
            await finish(push.tell())
        await self._vouch_aloud(push, answer, visit)
        if (warning := push.warning()) is not None:
            await answer.remark(visit, warning)
        await answer.release(visit)
        return status

    async def _vouch_aloud(self, push: Push, answer: Answer, visit: _Visit) -> None:
        """As `push.vouch`; a client that waits longer sees for whom, every WAITING_EVERY_S."""
        vouching = asyncio.create_task(push.vouch(), name="vouch")
        try:
            while not (await asyncio.wait({vouching}, timeout=WAITING_EVERY_S))[0]:
                line = None if answer.quiet else push.waits_for(visit.bytes_in)
                if line is not None:
                    await answer.remark(visit, line, on_stderr=False)
        finally:
            vouching.cancel()
            await asyncio.wait({vouching})
        vouching.result()

    async def _find_or_create(self, name: RepositoryName, changes: Changes) -> tuple[Repository, int]:
        """With the position that covers its creation, if it was made now."""
        if not self._settings.create_on_push:
            return await self._existing(name), 0
        repository, created = await self._store.ensure(name)
        if not created:
            return repository, 0
        identity = self._store.register.identity(repository)
        return repository, await finish(changes.created(identity))

    async def _existing(self, name: RepositoryName) -> Repository:
        """The repository of that name. A copied-in one is adopted first, so that its config is safe."""
        if self._store.find(name) is None:
            raise _missing(name)
        return await self._store.require(name)

    async def _create(self, command: RepoCreate) -> None:
        async with self._leadership.writing() as changes:
            repository = await self._store.create(command.name, object_format=command.object_format)
            identity = self._store.register.identity(repository)
            position = await finish(changes.created(identity))
            await vouch(changes, self._leadership, identity.id, position)

    async def _delete(self, command: RepoDelete) -> None:
        async with self._leadership.writing() as changes:
            if self._store.find(command.name) is None:
                raise _missing(command.name)
            identity = await self._store.delete(command.name)
            position = await finish(changes.deleted(command.name, identity))
            await vouch(changes, self._leadership, identity, position)

    def _argv(self, command: GitService, repository: Repository, visit: _Visit) -> list[str]:
        peer = visit.request.identity.access == "peer"
        return service_argv(command.service, repository, peer=peer, hooks=self._settings.hooks)

    def _environment(self, visit: _Visit, **more: str) -> dict[str, str]:
        """What git and its hooks see; of the client's environment a well-formed GIT_PROTOCOL only."""
        protocol = valid_git_protocol(visit.request.git_protocol)
        if protocol is not None:
            more["GIT_PROTOCOL"] = protocol
        return git_environment(extra={"STARGATE_USER": visit.request.identity.user, **more})


def _missing(name: RepositoryName) -> NoSuchRepositoryError:
    return NoSuchRepositoryError(f"no such repository: {name}")


def _internal(request: Request) -> StargateError:
    return StargateError(f"internal error; tell an operator the session {request.session_id}")
