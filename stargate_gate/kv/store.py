"""One namespace of a remote, used from a local repository: fetch, push, and the copy of the last fetch.

The copy is `refs/kv-remotes/<remote>/<ns>/ledger` and `…/index`. It never contains anything that the remote
does not have, so it may be deleted. A fetch goes to two refs of its own first (`refs/kv-fetch/<ulid>/…`), so
that commands that run at the same time in one repository do not read each other's fetches.
"""

import os
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from stargate_gate.kv import git
from stargate_gate.kv.objects import Reader
from stargate_gate.kv.outcomes import Answer, Outcome, of_fetch, of_push
from stargate_gate.kv.pace import Pace
from stargate_gate.kv.records import Commit
from stargate_gate.kv.remotes import CANDIDATE, Remote, configured
from stargate_gate.kv.snapshot import Snapshot
from stargate_gate.kv.tidying import FETCHED, tidy
from stargate_gate.kv.ulid import RANDOM_BYTES, ulid

if TYPE_CHECKING:
    from stargate_gate.kv.packs import NewObjects
    from stargate_gate.kv.transaction import Prepared

UNPACK_LIMIT = 100  # objects; more are kept as one pack, as git does with what it receives
TIDY_ONE_IN_256 = 5  # this many of 256 commands tidy up: git's own check takes a few milliseconds
# One fsync for all loose objects of a transaction (git-config(1), core.fsyncMethod).
_BATCHED = ("core.fsyncMethod=batch",)
_QUIET_FETCH = (
    "--no-write-fetch-head", "--no-tags", "--no-auto-maintenance", "--no-recurse-submodules", "--no-prune",
    "--progress",
)  # fmt: skip
_QUIET_PUSH = (
    "--porcelain", "--atomic", "--no-verify", "--no-follow-tags", "--recurse-submodules=no", "--progress",
)  # fmt: skip


class Store:
    """A namespace at a remote. A context manager.

    Raises on entering:
        KvError: the current folder is not in a repository.
    """

    def __init__(self, namespace: str, remote: str) -> None:
        self.namespace = namespace
        self.reader = Reader()
        self._remote_name = remote
        self.settings: dict[str, list[str]] = {}
        self.hash_name = "sha1"
        self._remote: Remote | None = None
        self._talked = False  # whether it talked to the remote, so that new objects may be here

    def __enter__(self) -> Self:
        self.reader.start()
        self.settings = git.settings()
        if "core.repositoryformatversion" not in self.settings:  # every repository has it
            git.output("rev-parse", "--git-dir")
        self.hash_name = self.settings.get("extensions.objectformat", ["sha1"])[-1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.reader.__exit__(kind, value, trace)
        if self._talked and kind is None and os.urandom(1)[0] < TIDY_ONE_IN_256:
            tidy(time.time_ns() // 10**6)

    @property
    def remote(self) -> Remote:
        """The remote.

        Raises:
            KvUsageError: there is none of that name.
        """
        if self._remote is None:
            self._remote = configured(self._remote_name, self.settings)
        return self._remote

    @property
    def refs(self) -> tuple[str, str]:
        """Ledger and index, as the remote calls them."""
        return f"refs/kv/{self.namespace}", f"refs/kv-index/{self.namespace}"

    @property
    def copies(self) -> tuple[str, str]:
        """Ledger and index, as they are kept here."""
        folder = f"refs/kv-remotes/{self._remote_name}/{self.namespace}"
        return f"{folder}/ledger", f"{folder}/index"

    def copy(self) -> Snapshot:
        """The local copy, as the last fetch or push left it."""
        return self._snapshot(self.copies)

    def local(self) -> Snapshot:
        """The local copy; without one, the repository's own refs, as on a server."""
        copy = self.copy()
        return copy if copy.ledger is not None else self._snapshot(self.refs)

    def fetch(self, url: str, pace: Pace) -> tuple[Answer, Snapshot]:
        """The answer, and what the URL has; unless the answer is DONE, an empty snapshot.

        The answer is UNKNOWN if ledger and index are of two transactions, because a push changes them just
        now.
        """
        unique = f"{FETCHED}/{ulid(time.time_ns() // 10**6, os.urandom(RANDOM_BYTES))}"
        own = (f"{unique}/ledger", f"{unique}/index")
        pairs = [f"+{theirs}:{ours}" for theirs, ours in zip(self.refs, own, strict=True)]
        self._talked = True
        config = self.remote.config(url)
        done = git.talk("fetch", *_QUIET_FETCH, CANDIDATE, *pairs, config=config, patience_s=pace.patience_s)
        answer = of_fetch(done)
        if answer.outcome is Outcome.MISSING and self.refs[0] in done.stderr:
            git.update_refs(dict.fromkeys(self.copies))
            return Answer(Outcome.DONE, "empty"), Snapshot()
        if answer.outcome is not Outcome.DONE:
            return answer, Snapshot()
        found = self._snapshot(own)
        copies = dict(zip(self.copies, found.oids, strict=True)) if found.agrees else {}
        # If another command holds the lock of the copies, leave its copy: it is as new as this one.
        if not git.update_refs({**copies, **dict.fromkeys(own)}):
            git.update_refs(dict.fromkeys(own))
        if not found.agrees:
            names = " and ".join(self.refs)
            return Answer(Outcome.UNKNOWN, f"{names} there are not of one transaction"), Snapshot()
        return answer, found

    def ask(self, url: str, pace: Pace) -> tuple[Answer, tuple[str | None, str | None]]:
        """Ask the URL for both refs as a push does; a node that accepts no pushes answers NOT_LEADER.

        So the answer of a Stargate node is never behind what was acknowledged. Over HTTP, git asks as for a
        fetch.
        """
        config = self.remote.config(url)
        ask = ("ls-remote", "--upload-pack=git-receive-pack", CANDIDATE, *self.refs)
        done = git.talk(*ask, config=config, patience_s=pace.patience_s)
        oids = {
            ref: oid for oid, _, ref in (line.partition("\t") for line in done.stdout.decode().splitlines())
        }
        return of_fetch(done), (oids.get(self.refs[0]), oids.get(self.refs[1]))

    def fetch_leading(self, url: str, pace: Pace) -> tuple[Answer, Snapshot]:
        """As `fetch`, but only from a node that accepts pushes; others may be behind, and give NOT_LEADER."""
        answer, oids = self.ask(url, pace)
        if answer.outcome is not Outcome.DONE:
            return answer, Snapshot()
        copy = self.copy()
        return (answer, copy) if copy.agrees and copy.oids == oids else self.fetch(url, pace)

    def push(self, url: str, prepared: "Prepared", pace: Pace) -> Answer:
        """Move both refs at the URL from the base to the new commits, or neither. Call `keep` before."""
        self._talked = True
        leases, pairs = [], []
        new = (prepared.ledger.oid, prepared.index.oid)
        for ref, old, oid in zip(self.refs, prepared.base.oids, new, strict=True):
            leases.append(f"--force-with-lease={ref}:{old or ''}")
            pairs.append(f"{oid}:{ref}")
        config = [*self.remote.config(url), "pack.window=0", "pack.compression=1"]
        answer = of_push(
            git.talk(
                "push", *_QUIET_PUSH, *leases, CANDIDATE, *pairs, config=config, patience_s=pace.patience_s
            )
        )
        if answer.outcome is Outcome.DONE:
            git.update_refs(dict(zip(self.copies, new, strict=True)))
        return answer

    def keep(self, objects: "NewObjects") -> None:
        """Store new objects in the local repository, as durably as the user's git configuration says.

        Raises:
            KvError
        """
        if len(objects) < UNPACK_LIMIT:
            git.output("unpack-objects", "-q", given=objects.pack(), config=_BATCHED)
        else:
            git.output("index-pack", "--stdin", given=objects.pack(), config=_BATCHED)

    def landed(self, txn: str, tip: Commit, base: Commit | None) -> str | None:
        """The commit of that transaction between `base` and `tip`; None if there is none.

        Raises:
            KvError
        """
        since = [f"^{base.oid}"] if base is not None else []
        line = f"KV-Txn: {txn}"
        found = git.output("rev-list", "-1", "--fixed-strings", f"--grep={line}", tip.oid, *since)
        return found.decode().strip() or None

    def _snapshot(self, names: tuple[str, str]) -> Snapshot:
        ledger, index = (
            Commit.parsed(found.oid, found.content) if found is not None and found.kind == "commit" else None
            for found in self.reader.read_many(names)
        )
        return Snapshot(ledger, index)
