"""What a standby does to one repository. Follows replication/standby/apply.py and rescue/keep.py."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

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
from tests.simulation.placing import Placing

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
        self._lines: dict[str, Line] = {}
        self._placing = Placing(self)

    def require_current(self) -> None:
        if not self._is_current() and not (
            self.process.taking_over and not self.rules.end_mirror_before_claim
        ):
            raise TermOverError

    def change(self, change: Changed) -> Steps:
        repo = self.process.store.known(change.id)
        if repo is None or repo.name != change.name:
            return False
        with self._placing.placement.working(change.id):
            return (yield from self._change(repo, change))

    def _change(self, repo: Repo, change: Changed) -> Steps:
        before, after = before_and_after(change.delta)
        transactions = self.rules.plan(before, after)
        refs = [one.ref for some in transactions for one in some]
        yield from self._fetch_and_mark(repo, change.seq, refs, after.values())
        if not (yield from self._change_refs(repo, transactions, change.seq, frozenset(before.values()))):
            return False
        yield from self._finish(repo)
        return True

    def compare(self, identity: str) -> Steps:
        shown = yield from self.ask(identity)
        if shown.id is None:
            yield from self.gone(identity, deleted=shown.deleted)
            return
        repo = yield from self._placing.at_its_place(identity, shown.name)
        is_new = repo is None
        if repo is None:
            self.require_current()
            self.process.disk.write()
            repo = Repo(shown.name, identity)  # beside, until it is complete
            self.world.cover("a repository is created by the mirror")
        with self._placing.placement.working(identity):
            yield from self._equalise(repo, shown, is_new=is_new)
        if is_new:
            repo.inode = self.process.disk.new_inode()
            repo.home = repo.safe_home = repo.inode
            yield from self._placing.come(repo, shown.name)
            self.world.ledger.equal(self.process.disk, identity, shown.line, self.leader_disk)
        self.settle(shown.seq, repo)

    def _equalise(self, repo: Repo, shown: Shown, *, is_new: bool) -> Steps:
        for _ in range(ATTEMPTS):
            yield
            local = dict(repo.refs)
            if local == shown.refs:
                if not is_new:
                    self.world.ledger.equal(self.process.disk, repo.id, shown.line, self.leader_disk)
                yield from self._finish(repo)
                return
            yield from self._overwrite(repo, local, shown)
            self.world.cover("a repository is compared")
        raise UnfitError

    def gone(self, identity: str, *, deleted: bool) -> Steps:
        """The leader has none of that id."""
        yield from self._placing.gone(identity, deleted=deleted)
        if not deleted and self.process.store.known(identity) is not None:
            self.world.cover("a repository stays that the leader lacks")

    def put_away_stray(self, name: str) -> Steps:
        """Nobody knows whose repository that is."""
        yield from self._placing.put_away_stray(name)
        self.world.cover("a stray is put away")

    def line_of(self, identity: str) -> Line:
        """What the leader has shown last of that repository; for the ledger."""
        return self._lines.get(identity, frozenset())

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

    def ask(self, identity: str) -> Steps:
        """stargate-refs: the repository as the leader shows it, with the number that covers that."""
        yield
        leading = self.leader.leading
        if not self._leader_answers() or leading is None or leading.number != self.term or leading.closed:
            raise BrokenError
        asked = Shown()
        self.leader.start("show", leading.show(identity, asked))
        while not asked.complete and not asked.failed:
            yield asked.event, 1.0
            if not self._leader_answers():
                raise BrokenError
        if asked.failed:
            raise UnfitError
        self._lines[identity] = asked.line
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
            self.rescue(repo.name, value.ref, value.oid, shown.line)

    def rescue(self, name: str, ref: str, value: str, line: Line) -> None:
        """It is kept."""
        self.process.disk.kept.add(value)
        self.world.cover("a value is rescued")
        if self.world.ledger.dealt_with(line, value):
            self.world.cover("a value is rescued needlessly")
        self.world.say(self.process.node, f"rescues {value} of {name} {ref}")

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
            if self.process.store.known(repo.id) not in {None, repo}:
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


def complete_intents(process: "Process", require: Callable[[], None] = lambda: None) -> Steps:
    """What was begun is finished: Writer.complete. `require` raises what stops it. Raises FullError."""
    disk, world = process.disk, process.world
    for identity, intent in sorted(disk.intents.items()):
        repo = process.store.known(identity)
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
