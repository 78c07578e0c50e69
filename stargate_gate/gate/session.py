"""One request, from the command to the exit status: `Gate.handle`. Knows nothing of asyncssh.

    parse the command       64    commands.parse_command
    authorise               77    commands.authorise
    gate                     9    `_pass_gate`: does this node take writes?
    wait for a free share   69    admission.AdmissionQueue
    gate again               9    it may have closed meanwhile
    find or create          66
    run git                       repos/process.py, relay.py
    replicate, still leads  75, 9 push/acknowledge.py
    send git's report, exit status

The number is the exit status if the stage refuses. Reads skip the stages about writing.
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
from stargate_gate.aio.tasks import beside, finish, task_group
from stargate_gate.errors import (
    GitFailedError,
    LeadershipLostError,
    NoSuchRepositoryError,
    StargateError,
    UnavailableError,
)
from stargate_gate.exitcodes import ExitCode
from stargate_gate.gate.admission import AdmissionQueue, Pool, Shares
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
    authorise,
    gate,
    is_git_service,
    parse_command,
    program_of,
    revoked,
    writes,
)
from stargate_gate.gate.ports import Changes, Channel, Leadership, Meter, Peers, Reports, Request
from stargate_gate.gate.push.acknowledge import Push, reason_of, wait_replicated, without_change
from stargate_gate.gate.relay import HeldReport, PushRelay, relay
from stargate_gate.gate.replies import refuse, say, welcome
from stargate_gate.printable import printable
from stargate_gate.repos.git import git_environment, service_argv, valid_git_protocol
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.process import GitProcess, GitProcesses
from stargate_gate.repos.repository import Repository
from stargate_gate.repos.store import Store

log = structlog.get_logger()

WAITING_EVERY_S = 2.0  # between lines of progress for a client that waits for the sync set
CPU_EVERY_S = 1.0  # between looks at the processor time that git has used for a peer
MAX_LOGGED_COMMAND = 200  # characters
REASONS = {  # of a refused push, in metrics
    ExitCode.NOT_LEADER: "not_leader",
    ExitCode.NOT_ALLOWED: "not_allowed",
    ExitCode.NO_REPOSITORY: "no_repository",
    ExitCode.USAGE: "usage",
    ExitCode.UNAVAILABLE: "unavailable",
    ExitCode.TRY_AGAIN: "not_replicated",
}


@dataclass(frozen=True)
class GateSettings:
    """The part of the configuration that concerns requests.

    hooks            the folder with the pre-receive hook
    spill            a folder for unnamed files that keep what is too long for memory during a request
    handover_wait_s  how long a push waits for a leader
    drain_s          is added to that while this node is stepping down
    shares           how many sessions may run at a time
    queue_wait_s     how long others wait for a share
    address          what users put in their URLs, as host:port; None: the address of this node
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
class _Session:
    """One request while it is served: a `Channel` that counts bytes, and the content of the log line."""

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
        """Write the log line of this session. `exit` is None if the client was gone before its status."""
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
    """Serves requests. One per node; `handle` runs many times concurrently."""

    def __init__(  # noqa: PLR0917  # node/node.py passes its parts, each of another type
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
        self._admission = AdmissionQueue(settings.shares, settings.queue_wait_s)

    async def handle(self, request: Request, channel: Channel) -> int | None:
        """Serve one request to its end. Returns its exit status; None if the client was gone before that.

        Raises nothing but CancelledError: the client is gone, or the node stops. When this returns or raises,
        every process that ran for the request was reaped.
        """
        session = _Session(request, channel)
        status: int | None = None
        ended = "cancelled"
        with bound_contextvars(session=request.session_id):
            try:
                answer = await self._answer(session)
                await session.exit(answer)
                status, ended = answer, "exit"
            except ConnectionError as error:
                ended = str(error) or "the client is gone"
            finally:
                session.log(status, ended)
                self._meter.session_ended(program_of(request.command), status, session.duration_s)
        return status

    async def _answer(self, session: _Session) -> int:
        """The exit status, after all output was sent. Sends refusals and errors to the client."""
        try:
            return await self._serve(session)
        except GitFailedError as error:
            log.exception("session_failed", error=str(error))
            refusal: StargateError = _internal(session.request)
        except StargateError as error:
            refusal = error
        except ConnectionError:
            raise
        except TimeoutError:
            refusal = UnavailableError("nothing was sent either way for too long; the session is ended")
        except Exception as error:
            log.exception("session_failed", error=repr(error))
            refusal = _internal(session.request)
        session.refusal = refusal.message
        service = is_git_service(session.request.command)
        if service == "receive-pack":
            self._meter.push_refused(REASONS.get(refusal.exit_code, "other"))
        await refuse(
            session, refusal, service, begun=session.bytes_out > 0, terminal=session.request.terminal
        )
        return refusal.exit_code

    async def _serve(self, session: _Session) -> int:
        if session.request.revoked:
            raise revoked()
        command = parse_command(session.request.command)
        if isinstance(command, GitService | RepoCreate | RepoDelete):
            session.repository = str(command.name)
        if refusal := authorise(session.request.identity, command):
            raise refusal
        if writes(command):
            await self._pass_gate(command)
        return await self._run(command, session)

    async def _pass_gate(self, command: Command) -> None:
        """Return if this node takes writes, else raise. If it knows no live leader it waits for one first."""
        view = self._leadership.view()
        if not view.accepting and not view.leader_alive:
            limit_s = self._settings.handover_wait_s
            if view.stepping_down:
                limit_s += self._settings.drain_s
            log.debug("push_waits_for_leader", limit_s=limit_s)
            view = await self._leadership.wait_decided(limit_s)
        name = command.name if isinstance(command, GitService) else None
        if refusal := gate(view, self._settings.address, name):
            raise refusal

    async def _run(self, command: Command, session: _Session) -> int:
        match command:
            case Welcome():
                await session.say(welcome(session.request.identity, self._leadership.view().node))
            case Health():
                return await self._report(session, self._reports.healthy(), ExitCode.UNAVAILABLE)
            case Ready():
                return await self._report(session, self._reports.ready(), ExitCode.NOT_LEADER)
            case ShowStatus(json=json):
                level, text = self._reports.status(as_json=json)
                await session.say(text)
                return level
            case PeerCommand():
                return await self._peers.run(command, session, session.request.identity.source)
            case _:
                return await self._run_counted(command, session)
        return ExitCode.OK

    async def _report(self, session: _Session, report: tuple[bool, str], otherwise: ExitCode) -> int:
        well, line = report
        if well:
            await session.say(line)
            return ExitCode.OK
        session.refusal = line
        await refuse(
            session, StargateError(line), service=None, begun=False, terminal=session.request.terminal
        )
        return otherwise

    async def _run_counted(self, command: Command, session: _Session) -> int:
        """Commands that cost processes and disk: their number is limited."""
        async with self._admitted(session.request.identity, "push" if writes(command) else "read"):
            if writes(command):
                await self._pass_gate(command)  # it may have closed while this request waited for a share
            match command:
                case GitService(writes=True):
                    return await self._receive_pack(command, session)
                case GitService():
                    return await self._read_service(command, session)
                case RepoCreate():
                    await self._create(command)
                case RepoDelete():
                    await self._delete(command)
                case RepoList():
                    names = sorted(str(repository.name) for repository in await self._store.list())
                    if names:
                        await session.say("\n".join(names))
            return ExitCode.OK

    @asynccontextmanager
    async def _admitted(self, identity: Identity, pool: Pool) -> AsyncIterator[None]:
        """The scope of a session within the shares. Peers need none: the sync set depends on them."""
        if identity.access == "peer":
            yield
            return
        async with self._admission.session(identity, pool):
            yield

    async def _read_service(self, command: GitService, session: _Session) -> int:
        repository = await self._existing(command.name)
        process = await self._processes.start(
            self._argv(command, repository, session), env=self._environment(session), writes=None
        )
        if session.request.identity.access != "peer":
            return await relay(process, session)
        identity = self._store.register.identity(repository).id
        async with beside(self._report_cpu(process, identity, session), "report-cpu"):
            return await relay(process, session)

    async def _report_cpu(self, process: GitProcess, identity: str, session: _Session) -> None:
        """Tell the feed that git works for the peer, as it may for minutes without a byte: it is not late."""
        before = 0.0

        def used(cpu_s: float) -> None:
            nonlocal before
            if cpu_s > before:
                self._peers.worked_for(identity, session.request.identity.source)
            before = max(before, cpu_s)

        await process.watch_cpu(CPU_EVERY_S, used)

    async def _receive_pack(self, command: GitService, session: _Session) -> int:
        """A push. If it is not acknowledged, git's report is sent with each ref refused before the error is.

        The order matters for what a client believes: it takes a ref as pushed when a report says so, whatever
        the exit status is.
        """
        held = HeldReport()
        try:
            async with self._leadership.writing() as changes:
                return await self._push(command, session, held, changes)
        except LeadershipLostError as error:
            # The body was cancelled and git was reaped, so the refs can be looked at. A push that certainly
            # changed nothing can be repeated at the next leader; of any other the outcome is unknown.
            await held.rewrite(session, reason_of(error))
            if session.push is None or await session.push.changed_nothing():
                raise without_change(error) from error
            raise
        except StargateError as error:
            await held.rewrite(session, reason_of(error))
            raise

    async def _push(self, command: GitService, session: _Session, held: HeldReport, changes: Changes) -> int:
        """Run receive-pack. If git is killed, `GitProcesses` removes the files that it left."""
        repository, position = await self._find_or_create(command.name, changes)
        peer = session.request.identity.access == "peer"
        push = Push(repository, position, self._store, changes, self._leadership, waits=not peer)
        session.push = push
        process = await self._processes.start(
            self._argv(command, repository, session),
            env=self._environment(session, STARGATE_GATE_TOKEN=self._leadership.token()),
            writes=repository.path,
        )
        try:
            status = await PushRelay(process, session, push, held, self._settings.spill).run()
        finally:
            # Also if the client is gone or the push is cancelled: git may have changed refs before that, and
            # the standbys must get them.
            await finish(push.announce())
        await self._wait_replicated(push, held, session)
        if (warning := push.warning()) is not None:
            await held.send_message(session, warning)
        await held.release(session)
        return status

    async def _wait_replicated(self, push: Push, held: HeldReport, session: _Session) -> None:
        """As `push.wait_replicated`. Every WAITING_EVERY_S the client is told which standbys it waits for."""
        async with task_group(expected=(StargateError,)) as group:
            waiting = group.create_task(push.wait_replicated(), name="wait-replicated")
            while not (await asyncio.wait({waiting}, timeout=WAITING_EVERY_S))[0]:
                line = None if held.quiet else push.waits_for(session.bytes_in)
                if line is not None:
                    await held.send_message(session, line, or_stderr=False)

    async def _find_or_create(self, name: RepositoryName, changes: Changes) -> tuple[Repository, int]:
        """The repository, and the position of its creation if it was created now, else 0."""
        if not self._settings.create_on_push:
            return await self._existing(name), 0
        repository, created = await self._store.ensure(name)
        if not created:
            return repository, 0
        identity = self._store.register.identity(repository)
        return repository, await finish(changes.created(identity))

    async def _existing(self, name: RepositoryName) -> Repository:
        """The repository of that name. If somebody has copied it in, it gets a safe config first."""
        if self._store.find(name) is None:
            raise _missing(name)
        return await self._store.require(name)

    async def _create(self, command: RepoCreate) -> None:
        async with self._leadership.writing() as changes:
            repository = await self._store.create(command.name, object_format=command.object_format)
            identity = self._store.register.identity(repository)
            position = await finish(changes.created(identity))
            await wait_replicated(changes, self._leadership, identity.id, position)

    async def _delete(self, command: RepoDelete) -> None:
        async with self._leadership.writing() as changes:
            if self._store.find(command.name) is None:
                raise _missing(command.name)
            identity = await self._store.delete(command.name)
            position = await finish(changes.deleted(command.name, identity))
            await wait_replicated(changes, self._leadership, identity, position)

    def _argv(self, command: GitService, repository: Repository, session: _Session) -> list[str]:
        peer = session.request.identity.access == "peer"
        return service_argv(command.service, repository, peer=peer, hooks=self._settings.hooks)

    def _environment(self, session: _Session, **more: str) -> dict[str, str]:
        """The environment of git and its hooks. Of the client's it has only a well-formed GIT_PROTOCOL."""
        protocol = valid_git_protocol(session.request.git_protocol)
        if protocol is not None:
            more["GIT_PROTOCOL"] = protocol
        return git_environment(extra={"STARGATE_USER": session.request.identity.user, **more})


def _missing(name: RepositoryName) -> NoSuchRepositoryError:
    return NoSuchRepositoryError(f"no such repository: {name}")


def _internal(request: Request) -> StargateError:
    return StargateError(f"internal error; tell an operator the session {request.session_id}")
