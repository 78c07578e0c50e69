"""What nodes tell each other of themselves; why a peer is not reached; when a standby was equal last."""

import asyncio
import errno
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stargate_gate.config.model import Config
from stargate_gate.election.port import Member
from stargate_gate.replication.leader.sync_rules import Stage, next_stage
from stargate_gate.replication.peer.unreachable import connect_problem
from stargate_gate.replication.standby.equality import WRITE_EVERY_S, InStep
from stargate_gate.replication.standby.introductions import Throughput
from stargate_gate.replication.wire.about import (
    MAX_SETTINGS,
    USER_KEYS,
    KeysApart,
    Whoami,
    checked_settings,
    differences,
    misdirected,
    settings_of,
)
from stargate_gate.status import Equality

A, B = Member("node-a", "a" * 32), Member("node-b", "b" * 32)


def settings(**changes: Any) -> tuple[tuple[str, str], ...]:
    """Of a node with the defaults but for these keys."""
    known = {"version": "1.0", "host_keys": ("SHA256:x",), "user_keys": "2 keys, digest 1a2b"}
    found = dict(settings_of(Config(), **{**known, **{k: v for k, v in changes.items() if k in known}}))
    return tuple({**found, **{k.replace("__", "."): v for k, v in changes.items() if k not in known}}.items())


def test_equal_nodes_have_no_differences() -> None:
    """Nor do keys count that one side has never heard of: the versions say that."""
    assert differences(settings(), settings(), "node-b") == ()
    assert differences(settings(), (*settings(), ("scrub.every_h", "7")), "node-b") == ()
    assert differences(settings(), (), "node-b") == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": "1.1"}, "node-b runs stargate 1.1, this node 1.0: update the older one"),
        ({"replication__mode": "strict"}, "node-b has replication.mode strict, this node sync"),
        ({"election__lease_s": "7"}, "two nodes could lead at the same time"),
        ({"host_keys": ("SHA256:y",)}, "node-b has ssh.host_keys SHA256:y, this node SHA256:x"),
        ({"user_keys": "3 keys, digest ffff"}, "node-b lets in other keys than this node"),
    ],
)
def test_each_difference_is_a_line_that_says_what_to_do(changes: dict[str, Any], words: str) -> None:
    """With both values, and the node that has the other one."""
    (line,) = differences(settings(), settings(**changes), "node-b")
    assert words in line
    assert ": " in line


@pytest.mark.parametrize(
    "sent", [None, 5, "x", [["a"]], [["a", 1]], [["a", "b", "c"]], [["a", "b"]] * (MAX_SETTINGS + 1)]
)
def test_settings_that_cannot_be_meant_are_refused(sent: Any) -> None:
    """A peer of another version may send anything."""
    with pytest.raises((ValueError, TypeError)):
        checked_settings(sent)


def test_who_answers_at_an_address_is_told_apart_by_name_and_data_dir() -> None:
    """A name alone proves nothing."""
    assert misdirected(Whoami(B, "n"), B, "x:1") is None
    assert misdirected(Whoami(A, "n"), B, "x:1") == "node-a answers at x:1: correct ssh.advertise of node-b"
    assert "another node that is called node-b" in (
        misdirected(Whoami(replace(B, data_dir_id="c" * 32), "n"), B, "x:1") or ""
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('198.18.50.12', 2222)"),
            "firewall",
        ),
        (OSError(errno.EINVAL, "Invalid argument"), "the routes and the firewall of this machine"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "no way to that machine"),
        (TimeoutError(), "does a firewall drop that port?"),
        (socket.gaierror(-2, "Name or service not known"), "this name is not known here"),
        (
            OSError(
                "Multiple exceptions: [Errno 111] Connect call failed ('::1', 1), [Errno 113] Connect call"
            ),
            "nothing listens there (connection refused)",
        ),
        (OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS)), "no buffer space"),
    ],
)
def test_what_keeps_a_connection_from_being_made_is_told_without_numbers(error: OSError, words: str) -> None:
    """In words that say what to look at."""
    said = connect_problem(error)
    assert words in said
    assert "Errno" not in said
    assert "call failed" not in said


def test_a_standby_is_required_only_once_it_was_reached() -> None:
    """And level once it holds all that was told before."""

    def after(stage: Stage, **known: bool) -> Stage:
        return next_stage(stage, **{"confirmed": True, "reached": True, "holds": True, **known})

    assert after(Stage.CHECKING) is Stage.CATCHING_UP
    assert after(Stage.CHECKING, reached=False) is Stage.CHECKING
    assert after(Stage.CHECKING, confirmed=False) is Stage.CHECKING
    assert after(Stage.CATCHING_UP) is Stage.LEVEL
    assert after(Stage.CATCHING_UP, holds=False) is Stage.CATCHING_UP
    assert after(Stage.LEVEL, confirmed=False, reached=False, holds=False) is Stage.LEVEL


def test_the_rate_is_that_of_the_last_seconds() -> None:
    """0 while nothing can be said."""
    meter = Throughput()
    assert meter.bytes_per_s() == 0
    meter.sample(10.0, 500)
    assert meter.bytes_per_s() == 0
    meter.sample(12.0, 2500)
    assert meter.bytes_per_s() == 1000
    for second in range(13, 40):
        meter.sample(float(second), 2500)
    assert meter.bytes_per_s() == 0


async def test_the_last_equality_is_on_disk_at_a_bounded_rate(tmp_path: Path) -> None:
    """A new one at once, then one in WRITE_EVERY_S; the newest when it is asked for."""
    path, now = tmp_path / "in_step.json", [0.0]

    def on_disk() -> Equality | None:
        return InStep(path).newest

    kept = InStep(path, now=lambda: now[0])
    assert kept.newest is None
    kept.note(Equality(3, 1, 1000))
    await kept.flush()
    assert on_disk() == Equality(3, 1, 1000)
    for at in range(1001, 1010):
        now[0] += 1.0
        kept.note(Equality(3, 2, at))
    await asyncio.sleep(0)
    assert on_disk() == Equality(3, 1, 1000), "not yet"
    assert kept.newest == Equality(3, 2, 1009)
    now[0] += WRITE_EVERY_S
    kept.note(Equality(3, 2, 1020))
    await kept.flush()
    assert on_disk() == Equality(3, 2, 1020)
    kept.note(Equality(3, 2, 0))
    assert kept.newest == Equality(3, 2, 1020), "a time that is not known does not hide one that is"


def test_a_damaged_note_of_the_last_equality_is_none(tmp_path: Path) -> None:
    """It costs a time in a sentence, and keeps no node from starting."""
    path = tmp_path / "in_step.json"
    for content in ("", "[]", '{"term": 1}', '{"term": "x", "position": 1, "at": 1}'):
        path.write_text(content)
        assert InStep(path).newest is None


def test_keys_that_differ_for_a_moment_are_no_warning() -> None:
    """A file of keys is changed on one node after the other; a difference that stays is told."""
    mine, theirs = ((USER_KEYS, "a"),), ((USER_KEYS, "b"),)
    apart = KeysApart()
    for now, settings_there, lasts in (
        (0.0, None, False),
        (1.0, theirs, False),
        (15.0, theirs, False),
        (16.0, theirs, True),
        (17.0, mine, False),
        (18.0, theirs, False),
    ):
        apart.see(mine, settings_there, now)
        assert apart.lasts(now) is lasts, now
    assert differences(mine, theirs, "node-b", keys=False) == ()
    assert len(differences(mine, theirs, "node-b")) == 1
