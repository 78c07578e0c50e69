"""Restores a rescued value, by a push to the leader under a new ref name; or drops it."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from stargate_gate.aio.tasks import finish
from stargate_gate.config.endpoint import Endpoint
from stargate_gate.errors import (
    NoSuchRepositoryError,
    NotLeaderError,
    StargateError,
    TryAgainError,
    UnavailableError,
    UsageError,
)
from stargate_gate.replication.peer.connection import Credentials, Peer, PeerChannel
from stargate_gate.replication.peer.fd_bridge import gits_end
from stargate_gate.replication.rescue.store import Rescues
from stargate_gate.replication.rescue.values import Rescued, RescuedRepository
from stargate_gate.repos.git import repository_argv
from stargate_gate.repos.names import RepositoryName, encode_ref, parse_repository_name, ref_problem
from stargate_gate.repos.plan import RefChange, update_ref_input
from stargate_gate.repos.process import Completed, GitProcesses
from stargate_gate.repos.repository import Repository
from stargate_gate.repos.store import Store

log = structlog.get_logger()

PUSH_LIMIT_S = 3600.0  # it may be a whole repository
REFS_LIMIT_S = 60.0
MIN_PREFIX = 4  # hex digits of an object id, as git takes them

_HEX = re.compile(r"[0-9a-f]+")
_PUSH = ("push", "--porcelain", "--no-verify", "--no-follow-tags", "--no-signed", "--recurse-submodules=no")


@dataclass(frozen=True)
class Found:
    """A rescued value that an operator has named."""

    repository: RescuedRepository
    rescued: Rescued


class Restorer:
    """One per node. `leader` gives the address of the leader, which may be this node; None: nobody leads."""

    def __init__(
        self,
        store: Store,
        processes: GitProcesses,
        rescues: Rescues,
        credentials: Credentials,
        leader: Callable[[], Endpoint | None],
    ) -> None:
        self._store = store
        self._processes = processes
        self._rescues = rescues
        self._credentials = credentials
        self._leader = leader

    def find(self, name: str, oid: str) -> Found:
        """The value of that repository whose object id begins with `oid`.

        Raises:
            NoSuchRepositoryError: nothing of that repository was rescued here.
            UsageError: there is no such value, or more than one.
        """
        wanted = str(parse_repository_name(name))
        repositories = [one for one in self._rescues.all() if one.name == wanted]
        if not repositories:
            raise NoSuchRepositoryError(
                f"no rescued refs of {wanted} on this node: see stargate rescued list"
            )
        if len(oid) < MIN_PREFIX or not _HEX.fullmatch(oid):
            raise UsageError(f"{oid!r} is no object id: name at least {MIN_PREFIX} of its hex digits")
        found = {
            one.value.oid: Found(repository, one)
            for repository in repositories
            for one in reversed(repository.values)
            if one.value.oid.startswith(oid)
        }
        if len(found) != 1:
            problem = "more than one rescued value" if found else "no rescued value"
            raise UsageError(f"{problem} of {wanted} begins with {oid}: see stargate rescued list")
        return next(iter(found.values()))

    async def restore(
        self, found: Found, *, as_ref: str | None, to: str | None
    ) -> tuple[RepositoryName, str]:
        """Push it to the leader, into `to` (default: its own repository), as the new ref `as_ref`.

        Returns the repository and the ref when every member of the sync set has the value. It is then no
        rescued value any more.

        Raises:
            UsageError, NoSuchRepositoryError: `to` or `as_ref` is invalid, or that ref exists already.
            NotLeaderError: nobody leads now.
            UnavailableError, TryAgainError: the leader did not take it; it is still rescued.
        """
        target = parse_repository_name(to if to is not None else found.repository.name)
        ref = _full(as_ref) if as_ref is not None else new_name(found.rescued)
        where = self._leader()
        if where is None:
            raise NotLeaderError("not leader: nobody leads now; try again when somebody does")
        repository = await self._repository(found.repository)
        peer = await Peer.connect(where, self._credentials)
        try:
            channel = await peer.open(f"git-receive-pack '{target}'")
            await self._push(repository, channel, found.rescued.value.oid, ref)
        except ConnectionError as error:
            raise TryAgainError(f"{error}; whether it was restored is unknown: try again") from error
        finally:
            await finish(peer.close())
        log.info("rescued_restored", repository=str(target), ref=ref, oid=found.rescued.value.oid)
        await self._forget(found)
        return target, ref

    async def drop(self, found: Found) -> None:
        """Stop keeping it: git may prune it later.

        Raises:
            UnavailableError, GitFailedError, OSError: it is still rescued.
        """
        await self._forget(found)
        log.warning("rescued_dropped", repository=found.repository.name, oid=found.rescued.value.oid)

    # -- inside ----------------------------------------------------------------------------------------

    async def _repository(self, wanted: RescuedRepository) -> Repository:
        """Where it lies now, whatever became of its name."""
        repository = None
        if not wanted.in_trash:
            repository = await self._store.by_id(wanted.id, search=True)
        if repository is None:
            repository = await self._store.in_trash(wanted.id)
        if repository is None:
            raise UnavailableError(
                f"{wanted.name} with id {wanted.id} is neither in repositories/ nor in trash/: was it moved?"
            )
        return repository

    async def _push(self, repository: Repository, channel: PeerChannel, oid: str, ref: str) -> None:
        async with gits_end(channel, f"restore {repository.name}", lambda _: None) as fd:
            name = os.fsdecode(encode_ref(ref))
            words = (*_PUSH, f"--force-with-lease={name}:", f"fd::{fd},{fd}", f"{oid}:{name}")
            argv = repository_argv(repository, *words)
            done = await self._processes.complete(argv, limit_s=PUSH_LIMIT_S, pass_fds=(fd,))
            if done.status != 0:
                raise _refusal(done, channel.stderr, ref)

    async def _forget(self, found: Found) -> None:
        oid = found.rescued.value.oid
        if not found.repository.in_trash:
            repository = await self._repository(found.repository)
            refs = {one.value.rescued_ref for one in found.repository.values if one.value.oid == oid}
            commands = update_ref_input(RefChange(ref, None, None) for ref in sorted(refs))
            argv = repository_argv(repository, "update-ref", "--stdin", "-z")
            await self._processes.run(argv, limit_s=REFS_LIMIT_S, input=commands, writes=repository.path)
        await self._rescues.remove(found.repository.id, oid)


def new_name(rescued: Rescued) -> str:
    """A name beside the old one: refs/heads/a of term 3 becomes refs/heads/rescued/3/a."""
    value = rescued.value
    _, kind, *rest = value.ref.split("/")
    if not rest:
        kind, rest = "heads", [kind]
    return "/".join(("refs", kind, "rescued", str(value.term), *rest))


def _full(ref: str) -> str:
    if ref.startswith("-") or not ref:
        raise UsageError(f"{ref!r} is no name for a ref")
    full = ref if ref.startswith("refs/") else f"refs/heads/{ref}"
    if (problem := ref_problem(encode_ref(full))) is not None:
        raise UsageError(problem)
    return full


def _refusal(done: Completed, leader_says: str, ref: str) -> StargateError:
    """Why git push has failed: the ref's own line (git-push(1), --porcelain), or the first complaint."""
    lines = [
        line for line in (done.stdout + b"\n" + done.stderr).decode("utf-8", "replace").splitlines() if line
    ]
    refused = next((line for line in lines if line.startswith("!")), "")
    if "stale info" in refused:
        return UsageError(f"not restored: {ref} is there already: choose another name with --as")
    fatal = next((line for line in lines if line.startswith(("fatal: ", "error: "))), "git push has failed")
    reason = refused.rpartition("\t")[2] or leader_says or fatal
    return UnavailableError(f"not restored: {' '.join(reason.split())}")
