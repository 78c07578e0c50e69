"""What a standby does to one repository. Follows replication/standby/apply.py and rescue/keep.py."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stargate_gate.replication.rescue.unreplicated import Kept
from stargate_gate.replication.rescue.values import in_question
from stargate_gate.replication.standby.intent import Intent, needed, remaining
from stargate_gate.replication.wire.delta import before_and_after
from stargate_gate.replication.wire.messages import Changed
from stargate_gate.replication.wire.numbers import FIRST_POSITION
from stargate_gate.repos.plan import RefChange
from tests.simulation.disk import Line, Repo, fits
from tests.simulation.engine import Steps
from tests.simulation.feeding import Shown
from tests.simulation.network import BrokenError

if TYPE_CHECKING:
    from tests.simulation.following import Session
    from tests.simulation.process import Process

ATTEMPTS = 3


class TermOverError(Exception):
    """The mirror has ended."""


class UnfitError(Exception):
    """It cannot be done now."""


class Applier:
    """For one session."""

    def __init__(self, session: "Session") -> None:
        self.process = session.process
        self.world = session.world
        self.rules = session.rules
        self.term = session.term
        self.leader = session.leader
        self.leader_disk = session.leader.disk
        self._connection = session.connection
        self._is_current = session.is_current

    def require_current(self) -> None:
        if not self._is_current() and not (
            self.process.taking_over and not self.rules.end_mirror_before_claim
        ):
            raise TermOverError

    def change(self, change: Changed) -> Steps:
        repo = self.process.disk.by_id(change.id)
        if repo is None:
            return False
        before, after = before_and_after(change.delta)
        transactions = self.rules.plan(before, after)
        refs = [one.ref for some in transactions for one in some]
        yield from self._fetch_and_mark(repo, change.seq, refs, after.values())
        if not (yield from self._change_refs(repo, transactions, change.seq, frozenset(before.values()))):
            return False
        yield from self._finish(repo)
        return True

    def compare(self, identity: str, name: str) -> Steps:
        shown = yield from self._ask(identity, name)
        disk = self.process.disk
        if shown.id is None:
            yield from self.gone(identity, name, deleted=shown.deleted, line=shown.line)
            return
        repo = disk.by_id(identity)
        is_new = repo is None
        if repo is None:
            self.require_current()
            disk.write()
            repo = Repo(name, identity)  # beside, until it is complete
            self.world.cover("a repository is created by the mirror")
        for _ in range(ATTEMPTS):
            yield
            local = dict(repo.refs)
            if local == shown.refs:
                if not is_new:
                    self.world.ledger.equal(disk, name, shown.line)
                yield from self._finish(repo)
                if is_new:
                    yield from self._come(repo, shown.line)
                self.settle(shown.seq, repo)
                return
            yield from self._overwrite(repo, local, shown)
            self.world.cover("a repository is compared")
        raise UnfitError

    def _come(self, repo: Repo, line: Line) -> Steps:
        """It comes to its place; who has it goes, if the leader has not got it."""
        disk = self.process.disk
        while (occupant := disk.repos.get(repo.name)) is not None:
            asked = yield from self._ask(occupant.id, occupant.name)
            if asked.id is not None:
                raise UnfitError
            yield from self._trash(occupant, asked.line, deleted=asked.deleted, everything=not asked.deleted)
        self.require_current()
        disk.write()
        disk.repos[repo.name] = repo
        disk.deleted.discard(repo.id)
        self.world.ledger.equal(disk, repo.name, line)
        self.world.ledger.dirty = True

    def gone(self, identity: str, name: str, *, deleted: bool, line: Line = frozenset()) -> Steps:
        """The leader has none of that id. What the whole sync set had stays, if no user has deleted it."""
        repo = self.process.disk.by_id(identity)
        if repo is None:
            return
        if not deleted:
            kept = self.process.disk.journal.kept(identity, self.term)
            if not kept or (repo.refs and not in_question(repo.refs, {}, kept)):
                self.world.cover("a repository stays that the leader lacks")
                return
        yield from self._trash(repo, line | self.leader_disk.line(name), deleted=deleted)

    def _overwrite(self, repo: Repo, local: dict[str, str], shown: Shown) -> Steps:
        """Once more what the leader has, whatever is here."""
        transactions = self.rules.plan(local, shown.refs)
        refs = [one.ref for some in transactions for one in some]
        values = set(shown.refs.values()) - set(local.values())
        yield from self._fetch_and_mark(repo, shown.seq, refs, values)
        if self.rules.rescue == "before":
            yield from self._keep(repo, local, shown)
        yield from self._change_refs(repo, transactions, shown.seq, shown.line)
        if self.rules.rescue == "after":
            yield from self._keep(repo, local, shown)

    def _ask(self, identity: str, name: str) -> Steps:
        """stargate-refs: the repository as the leader shows it, with the number that covers that."""
        yield
        leading = self.leader.leading
        if not self._leader_answers() or leading is None or leading.number != self.term or leading.closed:
            raise BrokenError
        asked = Shown()
        self.leader.start("show", leading.show(identity, name, asked))
        while not asked.complete and not asked.failed:
            yield asked.event, 1.0
            if not self._leader_answers():
                raise BrokenError
        if asked.failed:
            raise UnfitError
        return asked

    def _leader_answers(self) -> bool:
        leader = self.leader
        return (
            leader.node.process is leader
            and not leader.frozen
            and not self._connection.standby.broken
            and self.world.network.reachable(self.process, leader)
        )

    def _fetch(self, values: Any) -> Steps:
        disk = self.process.disk
        for value in sorted(values):
            if value in disk.objects:
                continue
            yield
            if not self._leader_answers():
                raise BrokenError
            disk.write()
            if value not in self.leader_disk.objects:
                raise UnfitError
            (disk.objects if self.rules.sync_objects else disk.unsynced_objects).add(value)

    def _fetch_and_mark(self, repo: Repo, seq: int, refs: list[str], values: Any) -> Steps:
        """The journal's disk works while the objects come; both are done when this returns."""
        disk = self.process.disk
        marks = bool(refs) and self.rules.mark_before_refs
        if marks:
            disk.journal.mark(self.term, seq, repo.id, repo.name, refs)
        yield from self._fetch(values)
        if marks:
            yield from self.process.sync_journal()

    def _keep(self, repo: Repo, local: dict[str, str], shown: Shown) -> Steps:
        """Each value that is not known replicated and that the leader's refs do not lead to."""
        process = self.process
        kept = process.disk.journal.kept(repo.id, self.term)
        for value in in_question(local, shown.refs, kept):
            if any(self.world.ledger.contains(tip, value.oid) for tip in shown.refs.values()):
                continue
            yield
            process.disk.write()
            self._rescue(repo, value.ref, value.oid, shown.line)

    def _rescue(self, repo: Repo, ref: str, value: str, line: Line) -> None:
        self.process.disk.kept.add(value)
        self.world.cover("a value is rescued")
        if self.world.ledger.dealt_with(line, value):
            self.world.cover("a value is rescued needlessly")
        self.world.say(self.process.node, f"rescues {value} of {repo.name} {ref}")

    def settle(self, seq: int, repo: Repo | None = None) -> None:
        """What is here is the leader's as of `seq`, or was rescued: that repository, or all."""
        journal = self.process.disk.journal
        journal.settle(self.term, seq, *(() if repo is None else (repo.id, repo.name)))
        if not self.rules.restamp_journal:
            journal.replicated(self.term, max(FIRST_POSITION, seq))

    def _change_refs(self, repo: Repo, transactions: list[list[RefChange]], seq: int, line: Line) -> Steps:
        """`line` is what the ledger needs to know of the leader's."""
        disk = self.process.disk
        if self.rules.intent and needed(transactions, head_moves=False):
            yield
            self.process.folders.sync(disk, repo)
            yield
            self.require_current()
            disk.write()
            disk.intents[repo.id] = Intent(repo.id, repo.name, tuple(map(tuple, transactions)), "")
        for transaction in transactions:
            self.require_current()
            self.process.folders.changing.add(repo.id)
            yield
            disk.write()
            if disk.by_id(repo.id) not in {None, repo}:
                return False
            if not fits(repo.refs, transaction) and self.rules.check_old_values:
                return False
            for change in transaction:
                self.world.ledger.mirrors(self, repo, change, line)
                disk.put(repo, change)
                if change.new is None:
                    self.world.ledger.removed(disk, repo, change.ref)
                yield
        if not self.rules.mark_before_refs:
            refs = [one.ref for some in transactions for one in some]
            disk.journal.mark(self.term, seq, repo.id, repo.name, refs)
            yield from self.process.sync_journal()
        return True

    def _finish(self, repo: Repo) -> Steps:
        yield
        if self.rules.sync_before_applied:
            self.process.folders.sync(self.process.disk, repo)
        yield
        self.process.disk.intents.pop(repo.id, None)

    def _trash(self, repo: Repo, line: Line, *, deleted: bool, everything: bool = False) -> Steps:
        """It goes to the trash, and stays there for ever if the leader may lack any of it."""
        disk, name = self.process.disk, repo.name
        kept = disk.journal.kept(repo.id, self.term)
        if everything and kept.rest is None:
            kept = Kept(kept.terms, 0)
        lost = in_question(repo.refs, {}, kept)
        if lost and self.rules.rescue != "never":
            yield
            disk.write()
            for value in lost:
                self._rescue(repo, value.ref, value.oid, line)
            disk.kept.update(repo.refs.values(), repo.stable.values())
        self.require_current()
        yield
        disk.write()
        self.world.ledger.trashes(self, repo, line)
        disk.repos.pop(name, None)
        if deleted:
            disk.deleted.add(repo.id)
        self.world.ledger.equal(disk, name, line)
        self.world.cover("a repository goes to the trash")


def complete_intents(process: "Process", require: Callable[[], None] = lambda: None) -> Steps:
    """What was begun is finished: Writer.complete. `require` raises what stops it. Raises FullError."""
    disk, world = process.disk, process.world
    for identity, intent in sorted(disk.intents.items()):
        repo = disk.by_id(identity)
        if repo is not None:
            world.cover("an intent is completed")
            for changes in remaining(intent, repo.refs).transactions:
                require()
                process.folders.changing.add(repo.id)
                yield
                disk.write()
                for change in changes:
                    disk.put(repo, change)
                    if change.new is None:
                        world.ledger.removed(disk, repo, change.ref)
                    world.ledger.dirty = True
                    yield
            yield
            process.folders.sync(disk, repo)
        yield
        disk.intents.pop(identity, None)
