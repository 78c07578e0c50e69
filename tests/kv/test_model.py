"""Whatever several clients do one after the other, the remote holds what a dictionary would hold."""

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from stargate_gate.cli.kv.main import run
from tests.support.git import git
from tests.support.kv import make_clone
from tests.support.ledger import audit

CLIENTS = 3
NAMES = [
    "a",
    "A",
    "ab",
    "abc",
    "abcd",
    "abcde",
    "abcdeF",
    "ab/c",
    ".",
    "..",
    ".git",
    "a:b",
    "é",
    "%61",
    "a.lock",
    "_",
    "con",
]
KEYS = st.sampled_from(NAMES) | st.text(
    st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=20
)
VALUES = st.binary(max_size=20)


class _Bytes(io.TextIOWrapper):
    """Stands in for stdin or stdout: has a `buffer`."""

    def __init__(self, content: bytes = b"") -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8", write_through=True)

    def written(self) -> bytes:
        """What came in."""
        content = self.buffer
        assert isinstance(content, io.BytesIO)
        return content.getvalue()


@contextlib.contextmanager
def streams(given: bytes) -> Iterator[_Bytes]:
    """Put these in the place of the process's own; yields what is written."""
    before = sys.stdin, sys.stdout, sys.stderr
    out = _Bytes()
    sys.stdin, sys.stdout, sys.stderr = _Bytes(given), out, _Bytes()
    try:
        yield out
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


class Model(RuleBasedStateMachine):
    """Clients with clones of their own, so that each is behind the others most of the time."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="stargate-kv-"))
        self.served = self.folder / "served.git"
        git("init", "-q", "--bare", self.served)
        self.clients = [make_clone(self.folder / f"{n}", str(self.served)).path for n in range(CLIENTS)]
        self.model: dict[str, bytes] = {}
        self.transactions = 0
        self.cwd = Path.cwd()

    def teardown(self) -> None:
        os.chdir(self.cwd)
        shutil.rmtree(self.folder)

    def kv(self, client: int, *args: str, given: bytes = b"", status: int = 0) -> bytes:
        """Run a command as that client does, in this process; its stdout."""
        os.chdir(self.clients[client])
        with streams(given) as out:
            found = run(args)
        assert found == status, (args, found)
        return out.written()

    @rule(client=st.integers(0, CLIENTS - 1), key=KEYS, value=VALUES)
    def set(self, client: int, key: str, value: bytes) -> None:
        """Always succeeds, wherever the client left off."""
        self.kv(client, "set", "--", key, "-", given=value)
        self.model[key] = value
        self.transactions += 1

    @rule(client=st.integers(0, CLIENTS - 1), key=KEYS, value=VALUES, right=st.booleans())
    def set_expecting(self, client: int, key: str, value: bytes, right: bool) -> None:  # noqa: FBT001
        """Succeeds if the expectation is right, and is 2 without a change if not."""
        absent = key not in self.model
        expect = "absent" if absent == right else self.oid(self.model.get(key, b"never this value"))
        self.kv(client, "set", "--expect", expect, "--", key, "-", given=value, status=0 if right else 2)
        if right:
            self.model[key] = value
            self.transactions += 1

    @rule(client=st.integers(0, CLIENTS - 1), key=KEYS)
    def delete(self, client: int, key: str) -> None:
        """1 if there is nothing to delete."""
        self.kv(client, "del", "--", key, status=0 if key in self.model else 1)
        if key in self.model:
            del self.model[key]
            self.transactions += 1

    @rule(
        client=st.integers(0, CLIENTS - 1),
        operations=st.lists(st.tuples(KEYS, st.none() | st.text(max_size=5)), min_size=1, max_size=5),
    )
    def mset(self, client: int, operations: list[tuple[str, str | None]]) -> None:
        """All or nothing."""
        after: dict[str, bytes] | None = dict(self.model)
        for key, value in operations:
            if after is not None and value is not None:
                after[key] = value.encode()
            elif after is not None and after.pop(key, None) is None:
                after = None
        lines = [
            {"op": "del", "key": key} if value is None else {"op": "set", "key": key, "value": value}
            for key, value in operations
        ]
        given = "\n".join(map(json.dumps, lines)).encode()
        self.kv(client, "mset", "--file", "-", given=given, status=1 if after is None else 0)
        if after is not None:
            self.model = after
            self.transactions += 1

    @rule(client=st.integers(0, CLIENTS - 1), key=KEYS)
    def get(self, client: int, key: str) -> None:
        """What was set last, by whomever."""
        if key in self.model:
            assert self.kv(client, "get", "--", key) == self.model[key]
        else:
            self.kv(client, "get", "--", key, status=1)

    @rule(client=st.integers(0, CLIENTS - 1), prefix=st.just("") | KEYS.map(lambda key: key[:3]))
    def list(self, client: int, prefix: str) -> None:
        """All keys with that prefix, in order."""
        listed = self.kv(client, "list", f"--prefix={prefix}").decode().split("\n")[:-1]
        assert listed == sorted((key for key in self.model if key.startswith(prefix)), key=str.encode)

    @invariant()
    def index_and_ledger_agree(self) -> None:
        """And both are linear, one commit a transaction; fsck is content; the remote holds the model."""
        found = audit(self.served)
        assert found.values == self.model
        assert len(found.txns) == self.transactions

    def oid(self, value: bytes) -> str:
        """As git names it."""
        return git("hash-object", "--stdin", cwd=self.served, given=value)


@pytest.mark.timeout(600)
def test_any_sequence_of_operations_gives_what_a_dictionary_gives() -> None:
    """By several clients; see Model."""
    run_state_machine_as_test(
        Model,
        settings=settings(
            max_examples=12, stateful_step_count=15, deadline=None, derandomize=False, database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
