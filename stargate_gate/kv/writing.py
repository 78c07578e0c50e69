"""Writes a transaction to the remote: pushes it until it is there exactly once, or gives up.

Theory of operation. A push contains the values that it expects both refs to have. Of two clients that push at
the same time, one succeeds and the other gets CONFLICT: it fetches, applies its operations to the new values,
and tries again. When the result of a push is not known (no answer, "outcome unknown", a broken connection),
the *same* commits are pushed again. If the first push had succeeded, git says "up to date", or CONFLICT if
others have pushed since; then the fetched history is searched for this transaction's name. If an earlier
attempt arrives late, it fails, because it expects values that the refs no longer have.
"""

import os
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from stargate_gate.errors import StargateError
from stargate_gate.kv import git
from stargate_gate.kv.errors import ConflictError, KvError, NoSuchKeyError
from stargate_gate.kv.outcomes import Answer, Outcome, failure, telling
from stargate_gate.kv.pace import Pace
from stargate_gate.kv.records import Commit, timestamp
from stargate_gate.kv.snapshot import Snapshot
from stargate_gate.kv.store import Store
from stargate_gate.kv.transaction import Operation, Prepared, State, Writer, checked, prepare
from stargate_gate.kv.ulid import RANDOM_BYTES, ulid


class Written(NamedTuple):
    """A transaction that is in the ledger."""

    txn: str
    commit: str
    values: Mapping[str, str]  # oids, by key


def write(store: Store, operations: Sequence[Operation], pace: Pace) -> Written:
    """Apply `operations` to the remote's namespace: all of them, once, or none.

    Raises:
        NoSuchKeyError, ConflictError: nothing was written.
        GaveUpError: no leader was found in time.
        KvError: it failed; the message says if the transaction may be there all the same.
        KvUsageError
    """
    return _Writing(store, checked(operations), pace).run()


class _Writing:
    def __init__(self, store: Store, operations: Sequence[Operation], pace: Pace) -> None:
        self._store = store
        self._operations = operations
        self._pace = pace
        self._txn = ulid(time.time_ns() // 10**6, os.urandom(RANDOM_BYTES))
        self._urls = list(store.remote.urls)  # the one that accepted a push last comes first
        self._base: Snapshot = store.copy()
        self._fresh = False  # whether the base was fetched by this command
        self._pushed_on: list[Commit | None] = []  # the base of the first push: the search ends there
        self._doubt = False  # whether a push may have succeeded
        self._values: Mapping[str, str] = {}

    def run(self) -> Written:
        if not self._base.agrees:
            self._base = Snapshot()
        writer = _writer()
        while True:
            try:
                prepared = self._prepare(writer)
            except (NoSuchKeyError, ConflictError):
                if self._fresh:
                    raise
                if (landed := self._refetch(self._urls)) is not None:
                    return landed
                continue
            if (landed := self._deliver(prepared)) is not None:
                return landed

    def _prepare(self, writer: Writer) -> Prepared:
        store = self._store
        state = State(store.namespace, self._base, store.reader, store.hash_name)
        prepared = prepare(state, self._txn, self._operations, writer)
        store.keep(prepared.objects)
        self._values = prepared.values
        return prepared

    def _deliver(self, prepared: Prepared) -> Written | None:
        """Push until the transaction is there. None if it has to be prepared again on a new base."""
        while True:
            url, answer = self._push(prepared)
            match answer.outcome:
                case Outcome.DONE:
                    return Written(self._txn, prepared.ledger.oid, prepared.values)
                case Outcome.CONFLICT:
                    self._check_time(answer)
                    # The first conflict is usual: the base was the local copy, which may be old. If the base
                    # was just fetched, another client writes at the same time: wait, so that one of the two
                    # succeeds.
                    if self._fresh:
                        self._pace.pause()
                    return self._refetch([url])
                case _:
                    self._check_time(answer)
                    self._pace.pause()

    def _push(self, prepared: Prepared) -> tuple[str, Answer]:
        """Try each URL once; returns the URL whose answer counts, and the answer."""
        if not self._pushed_on:
            self._pushed_on.append(prepared.base.ledger)
        answers = []
        for url in self._urls:
            answer = self._store.push(url, prepared, self._pace)
            if answer.outcome in {Outcome.DONE, Outcome.CONFLICT}:
                self._urls.sort(key=lambda other: other != url)
                return url, answer
            self._doubt = self._doubt or answer.outcome is Outcome.UNKNOWN
            answers.append(answer)
        return self._urls[0], telling(answers)

    def _refetch(self, urls: Sequence[str]) -> Written | None:
        """Fetch a new base from one of `urls`. Returns what was written if it is there already.

        If there are several URLs, only one that accepts pushes counts: a decision on an old base could be
        wrong.
        """
        while True:
            answers = []
            for url in urls:
                fetch = self._store.fetch if len(urls) == 1 else self._store.fetch_leading
                answer, found = fetch(url, self._pace)
                if answer.outcome is Outcome.DONE:
                    self._base, self._fresh = found, True
                    return self._landed(found)
                answers.append(answer)
            self._check_time(telling(answers))
            self._pace.pause()
            urls = self._urls

    def _landed(self, found: Snapshot) -> Written | None:
        if not self._pushed_on or found.ledger is None:
            return None
        commit = self._store.landed(self._txn, found.ledger, self._pushed_on[0])
        if commit is None:
            self._doubt = False
            return None
        return Written(self._txn, commit, self._values)

    def _check_time(self, answer: Answer) -> None:
        if answer.outcome is Outcome.REFUSED or self._pace.over():
            raise self._error(answer)

    def _error(self, answer: Answer) -> StargateError:
        what = f"{answer.reason}; gave up after {self._pace.timeout_s:g} s"
        if self._doubt:
            return KvError(f"{what}: outcome unknown, look for transaction {self._txn}")
        return failure(answer, what)


def _writer() -> Writer:
    author, committer = (
        said.decode("utf-8", "surrogateescape").strip()
        for said in git.outputs(("var", "GIT_AUTHOR_IDENT"), ("var", "GIT_COMMITTER_IDENT"))
    )
    now = datetime.now(UTC)
    email = author.rpartition("<")[2].partition(">")[0]
    return Writer(author, committer, email, now, timestamp(now))
