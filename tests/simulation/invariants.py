"""What must hold after every step, and the book that is kept to tell.

I1  one writer per term; nothing is acknowledged on a proof older than lease_s
I2  whatever was acknowledged is on the disk of everybody who may lead, by any record that may be in force
I3  no acknowledged value goes back to an older one, on any node
I4  no value leaves a node by mirroring, by an overwritten ref or into the trash, unless it was rescued
    before, the leader's refs lead to it, or the leader's line has dealt with it: it came before what the
    leader has, by pushes, or something did that a push has put in its place
I5  once the faults have stopped somebody leads, takes a push, and all nodes end equal (episode.py)
I6  a standby that begins to lead has each repository as some leader had it, never half of a change

I7  of two folders with one id the node serves one, the original, under that id; the copy never has the
    acknowledgements of the original. An id is given by a leader, and by nobody else
I8  what has merely vanished on the leader, and is known replicated, stays on the standbys: it goes to the
    trash only if a user has deleted it, or something of it may be there alone, which is rescued
I9  nothing is confirmed of a copy that is noted as damaged; the note goes when a sound copy is in its place,
    and once the faults have stopped every standby's note goes, if the leader's copy is sound (episode.py)

All of this is said of a repository's id; a name is only where it lies. What an operator takes away (rm) is
not asked of that node any more, nor of those that lack it at that moment; all others have to keep it.

Each write of a ref has a key, (term of the leader that wrote it, number): larger is later.

When an operator forces a leadership, I2 and I3 are waived for what was acknowledged in terms before. I4 is
waived for nothing, so the line of a node that gave up a value for a forced leader's is that leader's from
then on.
"""

from typing import TYPE_CHECKING

from stargate_gate.election.eligibility import Standing, Try
from stargate_gate.election.flock.slots import Slots, in_force
from stargate_gate.election.port import ClusterRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stargate_gate.repos.plan import RefChange
    from tests.simulation.applying import Applier
    from tests.simulation.disk import Disk, Line, Repo
    from tests.simulation.node import Node
    from tests.simulation.process import Process
    from tests.simulation.world import World

Key = tuple[int, int]
LATE_S = 5.0  # what a leader has begun to write may come after its term
WIPED_S = 30.0  # longer than any push waits
NEVER: Key = (-1, 0)
EXISTS = ""  # the name of a ref that says whether the repository is there, and with which id


class ViolationError(AssertionError):
    """An invariant does not hold."""

    def __init__(self, invariant: str, what: str) -> None:
        super().__init__(f"{invariant}: {what}")
        self.invariant = invariant


class Ledger:
    """What was written, acknowledged and opened. `dirty`: the check is due."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.dirty = False
        self.parents: dict[str, str | None] = {}
        self.keys: dict[str, Key] = {}
        self.removals: dict[tuple[str, str], Key] = {}
        self.acked: dict[int, dict[str, dict[str, Key]]] = {}  # by the forced leadership before
        self.acked_keys: dict[Key, int] = {}  # the newest of these
        self.forced = {0}  # the terms in which leaderships that an operator forced began, at least
        self.acknowledgements = 0
        self.opened: dict[int, Process] = {}
        self.newest = 0
        self.states: dict[str, set[frozenset[tuple[str, str]]]] = {}
        self.rewritten: set[str] = set()  # pushed again after they were lost: a copy tells not of which push
        self.superseded: dict[str, list[str]] = {}  # what clients have put in place of a value
        self.came_back: dict[str, float] = {}  # what operators have put back → when
        self.void: set[str] = set()  # repositories in whose place operators have put something else
        self._number = 0
        self._judged: dict[int, tuple[ClusterRecord, object, bool]] = {}  # the last answer of `may_lead`

    # -- the book -------------------------------------------------------------------------------------

    def wrote(self, term: int, repo: "Repo", ref: str, value: str | None) -> Key:
        """The leader of that term has written a ref of its own copy."""
        self._number += 1
        key = (term, self._number)
        before = repo.refs.get(ref)
        removed = self.removals.get((repo.id, ref), NEVER)
        if value is None:
            self.removals[repo.id, ref] = max(key, removed)
        else:
            if before is None:
                self.superseded.setdefault(_removal(repo.id, ref, removed), []).append(value)
            if value in self.keys:
                self.rewritten.add(value)
            self.keys[value] = max(key, self.keys.get(value, NEVER))
        if before is not None:
            self.superseded.setdefault(before, []).append(value or _removal(repo.id, ref, key))
        self.dirty = True
        return key

    def stands(self, repo: "Repo") -> None:
        """A leader has that repository in this state."""
        self.states.setdefault(repo.id, set()).add(frozenset(repo.refs.items()))

    def contains(self, tip: str | None, value: str) -> bool:
        """Whether `value` is `tip` or an ancestor of it."""
        while tip is not None:
            if tip == value:
                return True
            tip = self.parents.get(tip)
        return False

    def key(self, identity: str, ref: str, value: str | None) -> Key:
        if value is None:
            return self.removals.get((identity, ref), NEVER)
        return self.keys[value]

    # -- folders and ids ------------------------------------------------------------------------------

    def appears(self, repo: "Repo") -> None:
        """Somebody has copied that folder in, with values that no push has brought."""
        self._number += 1
        for value in (*([repo.id] if repo.id else []), *repo.refs.values()):
            self.keys.setdefault(value, (0, self._number))
            self.parents.setdefault(value, None)
        if repo.id:
            self.stands(repo)
        self.dirty = True

    def gives_id(self, process: "Process", repo: "Repo", identity: str) -> None:
        """A node is about to write that id into that folder."""
        now = self.world.engine.now
        if process.leading is None and now > process.led_until + LATE_S:
            raise ViolationError("I7", f"{process.node} gives {repo.name} an id, and does not lead")
        if identity not in self.keys:  # else its file was damaged
            self.world.cover("a copy gets an id" if repo.id else "a folder gets an id")
            self._number += 1
            self.keys[identity] = self.newest, self._number
            process.disk.lines[identity] = frozenset(repo.refs.values())
            self.states.setdefault(identity, set()).add(frozenset(repo.refs.items()))
        repo.original = True
        self.dirty = True

    def serves(self, node: "Node", repo: "Repo") -> None:
        """What that folder holds is about to be told, shown or acknowledged as the repository of its id."""
        others = [one for one in node.disk.repos.values() if one.id == repo.id and one is not repo]
        if not repo.original:
            if any(one.original for one in others):
                raise ViolationError("I7", f"{node} serves {repo.name}, a copy, as {repo.id}")
            self._forget(repo.id)  # an operator has put a copy in its place
        repo.original = True
        for one in others:
            one.original = False

    def takes_away(self, node: "Node", repo: "Repo") -> None:
        """An operator is about to remove that folder there, by hand; it holds the repository of its id."""
        for one in self.world.nodes:
            if one is node or self._lacks_id(one.disk, repo.id):
                one.disk.vanished.add(repo.id)
        self.dirty = True

    def comes_back(self, node: "Node", repo: "Repo") -> None:
        """An operator has put that folder back."""
        self.dirty = True
        others = [one for one in node.disk.repos.values() if one.id == repo.id and one is not repo]
        if repo.id and others:
            repo.original = False  # or the other one is: who is served first
            return
        repo.original = True
        self.came_back[repo.id] = self.world.engine.now
        if self.removals.get((repo.id, EXISTS)):
            self._forget(repo.id)
        elif not self._lacks_id(node.disk, repo.id):
            node.disk.vanished.discard(repo.id)

    def is_whole(self, node: "Node", repo: "Repo") -> bool:
        """Whether that folder has all that was acknowledged of it, and nobody works on it."""
        busy = node.process is not None and repo.id in node.process.folders.changing
        return repo.original and not busy and not self._lacks_id(node.disk, repo.id)

    def _forget(self, identity: str) -> None:
        """An operator has put something else in its place: what was acknowledged of it is void."""
        self.void.add(identity)
        for of_forced in self.acked.values():
            of_forced.pop(identity, None)

    def follows(self, disk: "Disk", leader: "Disk") -> None:
        """A standby begins to follow: what an operator took away there it does not get there."""
        disk.vanished |= {one for one in leader.vanished if self._lacks_id(disk, one)}

    def _lacks_id(self, disk: "Disk", identity: str) -> bool:
        acked = (of_forced.get(identity) for of_forced in self.acked.values())
        return disk.by_id(identity) is None or any(
            self._lacks_of(disk, identity, refs) is not None for refs in acked if refs
        )

    # -- I1 -------------------------------------------------------------------------------------------

    def opens(self, process: "Process", record: ClusterRecord) -> None:
        """A node begins to take writes."""
        term = record.term
        other = self.opened.setdefault(term, process)
        if other is not process:
            raise ViolationError("I1", f"{process.node} and {other.node} have both opened term {term}")
        self.newest = max(self.newest, term)
        self._whole(process.node)
        if self.world.mode != "async":
            self._holds(process.node, record, f"it opens term {term}")
        self.dirty = True

    def acknowledges(
        self, process: "Process", record: ClusterRecord, writes: "Iterable[tuple[str, str, Key]]"
    ) -> None:
        """A client is told that these writes are there to stay: (repository's id, ref, key)."""
        term, forced = record.term, self.forced_by(record.term)
        if self.opened.get(term) is not process:
            raise ViolationError("I1", f"{process.node} acknowledges in term {term} and has not opened it")
        tenure = process.tenure
        if tenure is None or self.world.engine.now - tenure.proved_at > self.world.lease_s:
            raise ViolationError("I1", f"{process.node} acknowledges in term {term} on old proof")
        for repo, ref, key in writes:
            of_repo = self.acked.setdefault(forced, {}).setdefault(repo, {})
            of_repo[ref] = max(key, of_repo.get(ref, NEVER))
            self.acked_keys[key] = max(forced, self.acked_keys.get(key, 0))
            if repo in process.disk.vanished:  # an operator took it away after it was written
                for node in self.world.nodes:
                    if node.member not in record.eligible and self._lacks_id(node.disk, repo):
                        node.disk.vanished.add(repo)
        self.acknowledgements += 1
        if self.world.mode == "strict" and not self._lately_reinstalled():
            others = [n for n in self.world.nodes if n is not process.node and not self._lacks(n, record)]
            if not others:
                raise ViolationError("I2", f"{process.node} acknowledges alone in mode strict")
        self.check()

    def _lately_reinstalled(self) -> bool:
        """Whether a disk has gone that may have confirmed what is acknowledged now."""
        return any(node.wiped_at > self.world.engine.now - WIPED_S for node in self.world.nodes)

    # -- I2 -------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Everybody who may lead has everything that was acknowledged, on disk."""
        self.dirty = False
        if self.world.volume.old_copy:
            return
        if self.world.volume.in_force is not None:
            for node in self.world.nodes:
                node.see(self.world.volume.in_force)
        for record in self._records():
            if record is None:
                raise ViolationError("I5", "the cluster record is gone")
            self.forced.add(record.forced)
            if record.term < self.newest:
                raise ViolationError("I2", f"the record goes back to term {record.term} from {self.newest}")
            if self.world.mode == "async":
                continue
            for node in self.world.nodes:
                if self.may_lead(node, record):
                    self._holds(node, record, f"it may lead after {record.term}.{record.version}")

    def forced_by(self, term: int) -> int:
        """The newest forced leadership up to that term; what records tell of it later may be wrong."""
        return max(forced for forced in self.forced if forced <= term)

    def _records(self) -> "list[ClusterRecord | None]":
        """What is in force, and what would be if a write that hangs came through."""
        volume = self.world.volume
        found = [volume.in_force]
        for slot, content in volume.late:
            if volume.only_copy(slot):
                continue
            slots = list(volume.slots)
            slots[slot] = content
            found.append(in_force(Slots(tuple(slots))))
        return found

    def may_lead(self, node: "Node", record: ClusterRecord) -> bool:
        process = node.process
        known = node.disk.known if process is None else process.known()
        asked, judged = (node.member, known), self._judged.get(node.number)
        if judged is not None and judged[0] is record and judged[1] == asked:
            return judged[2]
        standing = Standing(node.member, known, seen_s=1e9)
        decision = self.world.rules.decide(record, standing, place="the lock", handover_wait_s=0.0)
        self._judged[node.number] = record, asked, isinstance(decision, Try)
        return isinstance(decision, Try)

    def _holds(self, node: "Node", record: ClusterRecord, why: str) -> None:
        lacking = self._lacks(node, record)
        if lacking is not None:
            raise ViolationError("I2", f"{node} lacks an acknowledged write of {lacking}, and {why}")

    def _lacks(self, node: "Node", record: ClusterRecord) -> str | None:
        disk, since = node.disk, self.forced_by(record.term)
        for forced, acked in self.acked.items():
            if forced >= since:
                for identity, refs in acked.items():
                    if identity in disk.vanished:
                        continue
                    if (lacking := self._lacks_of(disk, identity, refs)) is not None:
                        return lacking
        return None

    def _lacks_of(self, disk: "Disk", identity: str, refs: "Mapping[str, Key]") -> str | None:
        nothing: Mapping[str, str] = {}
        repo = disk.by_id(identity)
        repo = repo if repo is not None and repo.original else None
        views = (nothing,) if repo is None else (repo.refs, repo.stable)
        if repo is not None and repo.refs == repo.stable:
            views = (repo.refs,)
        for ref, key in refs.items():
            if ref == EXISTS:
                if self.key(identity, ref, identity if repo else None) < key:
                    return f"repository {identity}"
                continue
            for view in views:
                value = view.get(ref)
                if (self.removals.get((identity, ref), NEVER) if value is None else self.keys[value]) < key:
                    return f"{identity} {ref} (it has {value})"
                if value is not None and value not in disk.objects:
                    return f"{identity} {ref}: the object {value}"
        return None

    # -- I3, I4 ---------------------------------------------------------------------------------------

    def mirrors(self, applier: "Applier", repo: "Repo", change: "RefChange", line: "Line") -> None:
        """A standby is about to make a ref what its leader has; `line` of what the leader has shown."""
        self.dirty = True
        node, ref = applier.process.node, change.ref
        old = repo.refs.get(ref)
        if old is None:
            return
        told = self.world.mode != "async" and old not in self.rewritten and repo.id not in self.void
        before, after = self.key(repo.id, ref, old), self.key(repo.id, ref, change.new)
        if told and self.acked_keys.get(before, -1) >= self.forced_by(applier.term) and after < before:
            raise ViolationError("I3", f"{node}: {repo.name} {ref} goes back from {old} to {change.new}")
        self._kept(applier, repo, ref, old, line)

    def trashes(self, applier: "Applier", repo: "Repo", line: "Line", *, deleted: bool) -> None:
        """A standby puts a repository away, where it stays for some days only."""
        self.dirty = True
        disk = applier.process.disk
        needed = repo.name in applier.leader_disk.repos or applier.was_shown_another(repo)
        if repo.original and repo.id and not deleted and not needed:
            kept = disk.journal.kept(repo.id, applier.term)
            if not kept and applier.leader_disk.by_id(repo.id) is None:
                what = f"{applier.process.node}: {repo.name}, which was replicated, goes to the trash"
                raise ViolationError("I8", f"{what}; the leader has lost it, and no user has deleted it")
        just_back = self.world.engine.now < self.came_back.get(repo.id, -LATE_S) + LATE_S
        has_it = deleted or (repo.id not in applier.leader_disk.vanished and not just_back)
        if not has_it:
            disk.vanished.add(repo.id)  # all of it is rescued
        for ref, value in (*repo.refs.items(), *repo.stable.items()):
            if has_it:
                self._kept(applier, repo, ref, value, line)
            elif value not in disk.kept:
                what = f"{value}, which was {repo.name} {ref}, vanishes unrescued"
                raise ViolationError("I4", f"{applier.process.node}: {what}, and the leader has lost it")

    def replaces(self, applier: "Applier", repo: "Repo", line: "Line") -> None:
        """A standby puts a damaged copy away, and a fresh one in its place."""
        self.dirty = True
        for ref, value in (*repo.refs.items(), *repo.stable.items()):
            self._kept(applier, repo, ref, value, line)

    def _kept(self, applier: "Applier", repo: "Repo", ref: str, old: str, line: "Line") -> None:
        node, leader = applier.process.node, applier.leader_disk
        if old in node.disk.kept or self.dealt_with(line | leader.line(repo.id), old):
            return
        there = leader.by_id(repo.id)
        if there is not None and any(self.contains(tip, old) for tip in there.refs.values()):
            return
        raise ViolationError("I4", f"{node}: {old}, which was {repo.name} {ref}, vanishes unrescued")

    def dealt_with(self, line: "Line", value: str) -> bool:
        """Whether it is in that line, or what a client put in its place, or what came after that."""
        found, seen = [value], {value}
        while found:
            one = found.pop()
            if one in line:
                return True
            later = [other for other in self.superseded.get(one, ()) if other not in seen]
            seen.update(later)
            found += later
        return False

    def removed(self, disk: "Disk", repo: "Repo", ref: str) -> None:
        """The ref is not there any more, as on the leader: what its last removal came after is settled."""
        key = self.removals.get((repo.id, ref))
        if key is not None:
            disk.lines[repo.id] = disk.line(repo.id) | {_removal(repo.id, ref, key)}

    def equal(self, disk: "Disk", identity: str, line: "Line", leader: "Disk") -> None:
        """The repository was made what the leader's is: so is all that came before that."""
        disk.lines[identity] = line
        repo = disk.by_id(identity)
        if repo is None:
            return  # an operator has taken it away meanwhile
        repo.original = True
        if identity in leader.vanished:
            disk.vanished.add(identity)
        else:
            disk.vanished.discard(identity)

    # -- I6 -------------------------------------------------------------------------------------------

    def _whole(self, node: "Node") -> None:
        for repo in node.disk.repos.values():
            if (
                repo.original
                and repo.id
                and frozenset(repo.refs.items()) not in self.states.get(repo.id, {frozenset()})
            ):
                raise ViolationError("I6", f"{node} leads with half of a change in {repo.name}")


def _removal(identity: str, ref: str, key: Key) -> str:
    return f"removal {key} of {identity} {ref}"
