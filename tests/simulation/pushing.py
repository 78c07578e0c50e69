"""What the gate does with a push, and what a client is told. Follows gate/session.py, relay.py and push/."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from stargate_gate.replication.wire.numbers import UNNUMBERED
from stargate_gate.repos.plan import RefChange
from tests.simulation.disk import FullError, Repo, fits
from tests.simulation.engine import Event, Steps
from tests.simulation.invariants import EXISTS
from tests.simulation.store import where

if TYPE_CHECKING:
    from stargate_gate.repos.identities import RepositoryIdentity
    from tests.simulation.leading import Leading
    from tests.simulation.process import Process

OK, REFUSED, UNKNOWN = "ok", "refused", "unknown"
OWN_STEPS = 3  # of the relay, from "replicated" to the report
Choose = Callable[[Mapping[str, str]], list[RefChange]]


class Request:
    """One connection of a client's: what it wants, and what it was told.

    choose   the commands, once the advertisement has come; none: it takes everything for up to date
    delete   the whole repository
    slow_s   what sending the pack takes
    """

    def __init__(self, repo: str, choose: Choose, *, delete: bool = False, slow_s: float = 0.0) -> None:
        self.repo = repo
        self.choose = choose
        self.delete = delete
        self.slow_s = slow_s
        self.result: str | None = None
        self.event = Event()


class Push:
    """One request, on the leader."""

    def __init__(self, process: "Process", request: Request) -> None:
        self.process = process
        self.world = process.world
        self.request = request
        self._identity: RepositoryIdentity | None = None  # which folder with which id it is about
        self._wrote = False  # noted as being written, and not told yet

    def run(self) -> Steps:
        yield
        leading = self.process.leading
        if leading is None or not leading.accepting():
            self._answer(REFUSED)
            return
        leading.pushes = [one for one in leading.pushes if one[0].alive]
        leading.pushes.append((self.process.start("push", self._serve(leading)), self))

    def _serve(self, leading: "Leading") -> Steps:
        try:
            work = self._delete(leading) if self.request.delete else self._push(leading)
            self._answer((yield from work))
        except FullError:
            self._answer(UNKNOWN)
        finally:
            self._answer(UNKNOWN)

    def _answer(self, result: str) -> None:
        if self.request.result is None:
            self.request.result = result
            self.world.cover(f"a client is told {result}")
            self.world.engine.wake(self.request.event)

    # -- a push ---------------------------------------------------------------------------------------

    def _push(self, leading: "Leading") -> Steps:  # noqa: C901, PLR0911 - the stages of a push, in order
        disk, name = self.process.disk, self.request.repo
        if name not in disk.repos:
            yield from self._create(leading)
        repo = yield from self.process.store.require(name)
        if repo is None:
            return REFUSED
        self._identity = identity = self.process.store.identity(repo)
        yield
        captured = yield from self._advertise(leading, repo)
        if captured is None:
            return UNKNOWN
        yield
        commands = self.request.choose(captured)
        if not commands:
            self.world.cover("everything is up to date")
            writes = [(identity.id, ref, self.world.ledger.keys[value]) for ref, value in captured.items()]
            return self._acknowledge(leading, [] if self.world.mode == "async" else writes)
        if self.process.rules.mark_before_push and not (yield from self._writing(leading)):
            return REFUSED
        done: list[tuple[str, str, tuple[int, int]]] = []
        try:
            yield from self._receive(leading, repo, commands, done)
        except FullError:
            self.world.cover("receive-pack fails")
        if not self.process.rules.mark_before_push:
            yield from self._writing(leading)
        seq = yield from self.tell(leading)
        if seq is None or (yield from leading.replicated(identity.id, seq)) != "ok":
            return UNKNOWN
        if not self.process.store.register.has(identity.id):
            return UNKNOWN
        if not done:
            return REFUSED
        for _ in range(OWN_STEPS):
            yield
        return self._acknowledge(leading, done)

    def _advertise(self, leading: "Leading", repo: Repo) -> Steps:
        """What the client is shown, once the sync set holds it; None: not in time."""
        wait = self.process.rules.wait_for_advertisement
        if self.world.mode == "async":
            wait = "never"
        if wait == "before the capture" and not (yield from self._replicated(leading, repo)):
            return None
        yield
        captured = dict(repo.refs)
        if self.process.disk.repos.get(self.request.repo) is not repo:
            return None  # git may be in another folder than the one that was meant
        if wait == "after the capture" and not (yield from self._replicated(leading, repo)):
            return None
        return captured

    def _create(self, leading: "Leading") -> Steps:
        disk, name, ledger = self.process.disk, self.request.repo, self.world.ledger
        yield
        disk.write()
        repo = disk.repos.get(name)
        if repo is None:
            repo = Repo(name, self.world.new_id("d"), since=self.world.engine.taken)
            disk.journal.mark(leading.number, UNNUMBERED, repo.id, name, None)
            disk.journal.sync(disk.write)
            disk.made(name, repo)
            self.process.store.register.put(where(name))
            ledger.wrote(leading.number, repo, EXISTS, repo.id)
            ledger.stands(repo)
            self.world.cover("a repository is created")
            yield from leading.written(self.process.store.identity(repo))

    def _writing(self, leading: "Leading") -> Steps:
        self._wrote = yield from leading.writing(self._identity)
        return self._wrote

    def _receive(
        self,
        leading: "Leading",
        repo: Repo,
        commands: list[RefChange],
        done: list[tuple[str, str, tuple[int, int]]],
    ) -> Steps:
        """receive-pack: the objects, then each ref in a transaction of its own, `done` as it is written."""
        disk, ledger = self.process.disk, self.world.ledger
        yield
        if self.request.slow_s:
            yield None, self.request.slow_s
        rules = self.process.rules
        for change in commands:
            if change.new is not None:
                (disk.objects if rules.sync_objects else disk.unsynced_objects).add(change.new)
        for change in commands:
            yield
            disk.write()
            if not fits(repo.refs, [change]):
                self.world.cover("a ref is refused")
                continue
            key = ledger.wrote(leading.number, repo, change.ref, change.new)
            disk.put(repo, change)
            if change.new is None:
                ledger.removed(disk, repo, change.ref)
            repo.own = True
            ledger.stands(repo)
            done.append((repo.id, change.ref, key))
        yield from self.process.wait_for_disk()  # until it is reaped
        self.world.say(
            self.process.node,
            f"receives {repo.name}: " + ", ".join(f"{c.ref} {c.old} → {c.new}" for c in commands),
        )

    def tell(self, leading: "Leading") -> Steps:
        """Git is reaped: what it has written is told, whatever became of the push; its number.

        None if the repository was deleted meanwhile.
        """
        seq: int | None = 0
        if self._wrote:
            seq = yield from leading.written(self._identity)
            self._wrote = False
        return seq

    def _replicated(self, leading: "Leading", repo: Repo) -> Steps:
        """On disk here, told, and held by the sync set."""
        yield
        seq = yield from leading.pushed(self._identity)
        return seq is not None and (yield from leading.replicated(repo.id, seq)) == "ok"

    def _acknowledge(self, leading: "Leading", writes: list[tuple[str, str, tuple[int, int]]]) -> str:
        """The gate again, and the report is released."""
        if not leading.valid() and self.process.rules.gate_again:
            self.world.cover("a held report is dropped")
            return UNKNOWN
        if self.world.mode != "async" or writes:
            self.world.say(self.process.node, f"acknowledges {', '.join(f'{r} {n}' for r, n, _ in writes)}")
            self.world.ledger.acknowledges(self.process, leading.record, writes)
        return OK

    # -- the deletion of a repository -----------------------------------------------------------------

    def _delete(self, leading: "Leading") -> Steps:
        disk, name, ledger = self.process.disk, self.request.repo, self.world.ledger
        repo = yield from self.process.store.require(name)
        if repo is None:
            return REFUSED
        yield
        disk.write()
        if disk.repos.get(name) is not repo:
            return REFUSED
        writes = [
            (repo.id, ref, ledger.wrote(leading.number, repo, ref, None)) for ref in [EXISTS, *repo.refs]
        ]
        disk.kept |= set(repo.refs.values())
        for ref in repo.refs:
            ledger.removed(disk, repo, ref)
        self.process.store.put_away_now(where(name), deleted=True)
        self.world.cover("a repository is deleted")
        self.world.say(self.process.node, f"deletes {name}")
        yield
        seq = yield from leading.deleted(repo)
        if (yield from leading.replicated(repo.id, seq)) != "ok":
            return UNKNOWN
        return self._acknowledge(leading, writes)
