"""Carries out the steps of a standby's jobs on a simulated disk, as step_runner.py does on a real one.

The jobs are the product's own (replication/standby/apply_steps.py). What is here is git, the disk and the
questions to the leader; besides, the ledger is told of what happens.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stargate_gate.election.incarnation import noted
from stargate_gate.errors import (
    ElectionUnavailableError,
    GitFailedError,
    StargateError,
    UnavailableError,
)
from stargate_gate.replication.rescue.values import COMMIT
from stargate_gate.replication.standby import steps as do
from stargate_gate.replication.standby.answers import (
    NOTED_BEFORE_THE_CRASH,
    NOTHING_MARKED,
    Digest,
    Histories,
    LeaderRepository,
    Occupant,
    OnDisk,
    Unsound,
    Walked,
)
from stargate_gate.replication.standby.intent_steps import complete
from stargate_gate.replication.wire.messages import Gone
from stargate_gate.repos.snapshot import RefSnapshot
from tests.simulation.disk import Line, Repo, fits
from tests.simulation.engine import Steps
from tests.simulation.feeding import Shown
from tests.simulation.invariants import ViolationError
from tests.simulation.store import run, where

if TYPE_CHECKING:
    from tests.simulation.following import Session
    from tests.simulation.process import Process

NOTHING: Line = frozenset()
HALF = 0.5


@dataclass
class _Census:
    known: Mapping[str, Repo]
    strays: tuple[Repo, ...] = ()


class Carrier:
    """For one session; `session` None: for a promotion, which follows nobody.

    Each method is one step. Between its `yield`s anything may happen.
    """

    def __init__(self, process: "Process", session: "Session | None", require: Callable[[], None]) -> None:
        self.process = process
        self.world = process.world
        self.disk = process.disk
        self.term = session.term if session is not None else 0
        self.leader_disk = session.leader.disk if session is not None else process.disk
        self._session = session
        self._require_current = require
        self._made: list[Repo] = []
        self._shown: dict[str, Shown] = {}  # what the leader has shown, by id

    def carry_out(self, step: do.Step) -> Steps:
        """The answer. Raises StargateError or OSError."""
        return (yield from _METHODS[type(step)](self, step))

    def _at_once(self, answer: object) -> Steps:
        return answer
        yield  # a generator

    # -- reading ---------------------------------------------------------------------------------------

    def _find(self, step: do.Find) -> Steps:
        return (yield from self.process.store.find(step.id))

    def _who_has(self, step: do.WhoHas) -> Steps:
        repo = self.disk.repos.get(str(step.name))
        if repo is None:
            return None
        own = yield from run(self.process.store.register.own_id(where(repo.name)))
        return Occupant(repo, own)  # type: ignore[arg-type]

    def _take_census(self, _: do.TakeCensus) -> Steps:
        census = yield from self.process.store.census()
        known = {identity: self.disk.repos.get(one.name) for identity, one in census.known.items()}
        strays = tuple(self.disk.repos[one.name] for one in census.strays if one.name in self.disk.repos)
        return _Census({identity: repo for identity, repo in known.items() if repo is not None}, strays)

    def _read_digests(self, step: do.ReadDigests) -> Steps:
        digests: list[Digest | None] = []
        for listed, copy in step.listed:
            yield
            repo = self.process.store.known(listed.id)
            if repo is not copy or repo is None:
                digests.append(None)
                continue
            unsettled = bool(self.disk.journal.kept(listed.id, self.term))
            digests.append(Digest(repo.snapshot().digest, unsettled))
            if digests[-1] is not None and repo.snapshot().digest == listed.digest:
                if unsettled:
                    self.world.cover("what equals a list is not settled")
                elif self._session is not None:
                    line = self._session.line_of_list(repo)
                    self.world.ledger.equal(self.disk, repo.id, line, self.leader_disk)
        return tuple(digests)

    def _read_refs(self, step: do.ReadRefs) -> Steps:
        repo = _repo(step.copy)
        yield
        shown = self._shown.get(repo.id)
        if shown is not None and repo.refs == shown.refs and self.disk.repos.get(repo.name) is repo:
            self.world.ledger.equal(self.disk, repo.id, shown.line, self.leader_disk)
        return repo.snapshot()

    def _read_journal(self, step: do.ReadJournal) -> Steps:
        return (yield from self._at_once(self.disk.journal.kept(step.id, self.term)))

    def _compare_histories(self, step: do.CompareHistories) -> Steps:
        yield
        contains = self.world.ledger.contains
        beyond = {
            value.oid
            for value in step.values
            if not any(contains(tip, value.oid) for tip in sorted(step.wanted))
        }
        return Histories({value.oid: COMMIT for value in step.values}, frozenset(beyond))

    def _read_intents(self, _: do.ReadIntents) -> Steps:
        return (yield from self._at_once([one for _, one in sorted(self.disk.intents.items())]))

    def _ask_leader(self, step: do.AskLeader) -> Steps:
        """stargate-refs: the repository as the leader shows it, with the number that covers that."""
        yield
        session, identity = self._session, step.id
        if session is None or not session.leader_answers(serving=True):
            raise ConnectionResetError("the leader is gone")
        asked = Shown()
        show = session.leader.leading.show(identity, asked)  # type: ignore[union-attr]
        session.leader.start("show", show)
        while not asked.complete and not asked.failed:
            yield asked.event, 1.0
            if not session.leader_answers():
                raise ConnectionResetError("the leader is gone")
        if asked.failed:
            raise UnavailableError("the leader cannot tell")
        self._shown[identity] = asked
        if asked.id is None:
            return Gone(self.term, asked.seq, identity, asked.deleted)
        name: Any = asked.name
        return LeaderRepository(identity, name, RefSnapshot("sha1", "", asked.refs), asked.seq)

    def was_shown_another(self, repo: Repo) -> bool:
        """The leader has shown a repository with this one's name and another id: the place is needed."""
        return any(one.name == repo.name and identity != repo.id for identity, one in self._shown.items())

    # -- writing ---------------------------------------------------------------------------------------

    def _settle_folders(self, _: do.SettleFolders) -> Steps:
        yield from self.process.folders.settle(self.disk)
        return OnDisk("everything")

    def _begin_copy(self, step: do.BeginCopy) -> Steps:
        self._require_current()
        self.disk.write()
        self.world.cover("a repository is created by the mirror")
        made = Repo(str(step.name), step.id)  # beside, until it is complete
        self._made.append(made)
        made.inode = made.home = made.safe_home = self.disk.new_inode()
        return (yield from self._at_once(made))

    def _is_beside(self, repo: Repo) -> bool:
        """Whether it was made by this session, and did not come to its place yet."""
        return self.disk.repos.get(repo.name) is not repo and any(one is repo for one in self._made)

    def _fetch_objects(self, step: do.FetchObjects) -> Steps:
        """The journal's disk works while the objects come; both are done when this returns."""
        if (mark := step.mark) is not None:
            self.disk.journal.mark(mark.term, mark.seq, mark.repository_id, mark.name, mark.refs)
        if _repo(step.copy).id in self._shown:
            self.world.cover("a repository is compared")
        yield from self._fetch_whole(_repo(step.copy))
        for value in sorted(step.oids):
            if value in self.disk.objects:
                continue
            yield
            if self._session is None or not self._session.leader_answers():
                raise ConnectionResetError("the leader is gone")
            self.disk.write()
            if value not in self.leader_disk.objects:
                raise UnavailableError("the leader has not got that object")
            (self.disk.objects if self.world.rules.sync_objects else self.disk.unsynced_objects).add(value)
        if mark is None:
            return NOTHING_MARKED
        yield from self.process.sync_journal()
        return OnDisk("marked")

    def _fetch_whole(self, repo: Repo) -> Steps:
        """What has its place has most objects, which hides that the leader's are damaged."""
        there = self.leader_disk.by_id(repo.id)
        if not self._is_beside(repo):
            if repo.rotten and self.world.engine.chance.random() < HALF:
                raise GitFailedError(["git", "fetch"], 128, b"fatal: bad object")
        elif there is not None and there.rotten:
            if not self.world.healing:
                self.world.cover("the leader's copy is damaged, too")
                raise UnavailableError("the leader says: fatal: unable to read")
            there.rotten = False  # an operator has repaired it
        return
        yield  # a generator

    def _note_unsound(self, step: do.NoteUnsound) -> Steps:
        yield
        self.disk.write()
        self.disk.unsound.setdefault(step.id, Unsound(step.name, step.why))
        if (repo := self.disk.by_id(step.id)) is not None:
            repo.noted = True

    def _clear_unsound(self, step: do.ClearUnsound) -> Steps:
        yield
        self.disk.write()
        self.world.cover("a damaged copy is replaced")
        self.disk.unsound.pop(step.id, None)  # another session may have removed it
        repo = self.disk.by_id(step.id)
        if repo is not None and repo.rotten and repo.noted:
            raise ViolationError("I9", f"{self.process.node}: {repo.name} counts as sound, and is damaged")

    def _walk(self, step: do.Walk) -> Steps:
        yield
        if _repo(step.copy).rotten:
            return Walked(1, UnavailableError("a bad object"))
        return Walked(0, UnavailableError("it is whole"))

    def _keep_refs(self, _: do.KeepRefs) -> Steps:
        yield
        self._require_current()
        self.disk.write()
        return OnDisk("kept")

    def _note_rescued(self, step: do.NoteRescued) -> Steps:
        yield
        self.disk.write()
        shown = self._shown.get(step.id)
        for value in step.values:
            self.disk.kept.add(value.oid)
            self.world.cover("a value is rescued")
            if self.world.ledger.dealt_with(shown.line if shown is not None else NOTHING, value.oid):
                self.world.cover("a value is rescued needlessly")
            self.world.say(self.process.node, f"rescues {value.oid} of {step.name} {value.ref}")
        if step.in_trash and (repo := self.disk.repos.get(str(step.name))) is not None:
            self.disk.kept.update(repo.refs.values(), repo.stable.values())
        return OnDisk("rescued")

    def _put_intent(self, step: do.PutIntent) -> Steps:
        yield
        self._require_current()
        self.disk.write()
        self.disk.intents[step.intent.repository_id] = step.intent
        return OnDisk("intent")

    def _change_refs(self, step: do.ChangeRefs) -> Steps:
        repo, completes = _repo(step.copy), step.marked is NOTED_BEFORE_THE_CRASH
        self._require_current()
        self.process.folders.changing.add(repo.id)
        yield
        self.disk.write()
        unfit = not fits(repo.refs, step.changes) and self.world.rules.check_old_values
        elsewhere = not self._is_beside(repo) and self.process.store.known(repo.id) not in {None, repo}
        if unfit or elsewhere:
            raise GitFailedError(["git", "update-ref"], 1, b"fatal: cannot lock ref")
        shown = self._shown.get(repo.id)
        line = shown.line if shown is not None else frozenset(one.old for one in step.changes if one.old)
        for change in step.changes:
            if not completes:
                self.world.ledger.mirrors(self, repo, change, line)
            self.disk.put(repo, change)
            if change.new is None:
                self.world.ledger.removed(self.disk, repo, change.ref)
            self.world.ledger.dirty = True
            yield
        return None

    def _sync_repository(self, step: do.SyncRepository) -> Steps:
        yield
        self.process.folders.sync(self.disk, _repo(step.copy))
        return OnDisk("refs")

    def _remove_intent(self, step: do.RemoveIntent) -> Steps:
        yield
        self.disk.intents.pop(step.id, None)

    def _move(self, step: do.Move) -> Steps:
        self._require_current()
        repo, name = _repo(step.copy), str(step.name)
        self._require_there(repo)
        yield from run(self.process.store.move(where(repo.name), name))
        return self.disk.repos[name]

    def _exchange(self, step: do.Exchange) -> Steps:
        self._require_current()
        one, other = _repo(step.one), _repo(step.other)
        self._require_there(one)
        self._require_there(other)
        yield from run(self.process.store.exchange(where(one.name), where(other.name)))
        return one, other

    def _complete(self, step: do.Complete) -> Steps:
        self._require_current()
        repo, former = _repo(step.made), step.instead_of
        if former is not None:
            self._require_there(_repo(former))
            line = self._shown[repo.id].line | self.leader_disk.line(repo.id)
            self.world.ledger.replaces(self, _repo(former), line)
        place = None if former is None else where(_repo(former).name)
        yield from run(self.process.store.complete(repo, step.name, place))
        self.world.ledger.equal(self.disk, repo.id, self._shown[repo.id].line, self.leader_disk)
        return repo

    def _put_away(self, step: do.PutAway) -> Steps:
        self._require_current()
        yield
        self.disk.write()
        repo = _repo(step.copy)
        self._require_there(repo)
        shown = self._shown.get(repo.id)
        line = (shown.line if shown is not None else NOTHING) | self.leader_disk.line(repo.id)
        self.world.ledger.trashes(self, repo, line, deleted=step.deleted)
        self.process.store.put_away_now(where(repo.name), deleted=step.deleted)
        if step.entry_id is None:
            self.disk.lines[repo.id] = line
        else:
            self.world.cover("a stray is put away")
        return OnDisk("trash")

    def _require_there(self, repo: Repo) -> None:
        if self.disk.repos.get(repo.name) is not repo:
            raise FileNotFoundError(repo.name)

    def _note_incarnation(self, step: do.NoteIncarnation) -> Steps:
        known = noted(self.disk.known.incarnations, step.incarnation)
        yield from self.process.note(incarnations=known)
        return OnDisk("incarnation")

    def _look_after(self, step: do.LookAfter) -> Steps:
        asked = _repo(step.copy).id in self._shown
        self.world.cover("a copy was compared" if asked else "a change is applied")
        return (yield from self._at_once(None))

    def _pause(self, step: do.Pause) -> Steps:
        yield None, step.seconds


_METHODS: Mapping[type, Callable[[Carrier, Any], Steps]] = {
    do.AskLeader: Carrier._ask_leader,
    do.Find: Carrier._find,
    do.WhoHas: Carrier._who_has,
    do.TakeCensus: Carrier._take_census,
    do.ReadDigests: Carrier._read_digests,
    do.ReadRefs: Carrier._read_refs,
    do.ReadJournal: Carrier._read_journal,
    do.CompareHistories: Carrier._compare_histories,
    do.ReadIntents: Carrier._read_intents,
    do.SettleFolders: Carrier._settle_folders,
    do.NoteUnsound: Carrier._note_unsound,
    do.ClearUnsound: Carrier._clear_unsound,
    do.Walk: Carrier._walk,
    do.BeginCopy: Carrier._begin_copy,
    do.FetchObjects: Carrier._fetch_objects,
    do.KeepRefs: Carrier._keep_refs,
    do.NoteRescued: Carrier._note_rescued,
    do.PutIntent: Carrier._put_intent,
    do.ChangeRefs: Carrier._change_refs,
    do.SyncRepository: Carrier._sync_repository,
    do.RemoveIntent: Carrier._remove_intent,
    do.Move: Carrier._move,
    do.Exchange: Carrier._exchange,
    do.Complete: Carrier._complete,
    do.PutAway: Carrier._put_away,
    do.NoteIncarnation: Carrier._note_incarnation,
    do.LookAfter: Carrier._look_after,
    do.Pause: Carrier._pause,
    do.ReadHead: lambda carrier, _: carrier._at_once(""),
    do.HasRescued: lambda carrier, _: carrier._at_once(False),
    do.Inspect: lambda carrier, _: carrier._at_once("sha1"),
    do.FindRemains: lambda carrier, _: carrier._at_once(None),
    do.ReadId: lambda carrier, step: carrier._at_once(_repo(step.copy).id or None),
    do.Adopt: lambda carrier, step: carrier._at_once((step.copy, True)),
    do.ChangeHead: lambda carrier, _: carrier._at_once(True),
    do.NewId: lambda carrier, _: carrier._at_once(carrier.world.new_id("r")),
    do.Compute: lambda carrier, step: carrier._at_once(step.function(*step.arguments)),
}


def _repo(copy: do.Copy) -> Repo:
    """A session passes on what it was given here."""
    assert isinstance(copy, Repo)
    return copy


def _anybody() -> None:
    """A promotion may change refs."""


def complete_intents(process: "Process", require: Callable[[], None] = _anybody) -> Steps:
    """What was received is completed, as `Mirror.finish_received` does it. Raises as that."""
    try:
        given_up = yield from _all_of(complete(rescue=True), Carrier(process, None, require), process)
        for intent in given_up:
            process.world.cover("an intent is given up")
            process.disk.intents.pop(intent.repository_id, None)
    except (StargateError, OSError) as error:
        raise ElectionUnavailableError(f"what was received cannot be completed: {error}") from error


def _all_of(steps: do.Steps[Any], carrier: Carrier, process: "Process") -> Steps:
    """As `carry_out_all` of the product."""
    answer: Any = None
    error: Exception | None = None
    while True:
        try:
            step = steps.throw(error) if error is not None else steps.send(answer)
        except StopIteration as done:
            return done.value
        answer, error = None, None
        if isinstance(step, do.Remark):
            if isinstance(step, do.Log) and step.event == "intent_completed":
                process.world.cover("an intent is completed")
            continue
        try:
            answer = yield from carrier.carry_out(step)  # type: ignore[arg-type]
        except (StargateError, OSError) as raised:
            error = raised
