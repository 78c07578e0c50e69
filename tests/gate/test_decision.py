"""The gate's decisions are plain values: who may do what, and what a standby answers."""

from dataclasses import replace
from typing import cast

import pytest

from stargate_gate.access.identity import Access, Identity
from stargate_gate.gate.commands import GateView, authorise, gate, parse_command, writes

COMMANDS = {
    "": "read write admin peer",
    "health": "read write admin peer",
    "ready": "read write admin peer",
    "status --json": "read write admin peer",
    "repo list": "read write admin peer",
    "git-upload-pack a": "read write admin peer",
    "git-upload-archive a": "read write admin peer",
    "git-receive-pack a": "write admin peer",
    "repo create a": "admin",
    "repo delete a": "admin",
    "stargate-feed node-b id": "peer",
    "stargate-refs a": "peer",
}
STANDBY = GateView(
    accepting=False,
    node="node-b",
    leader="node-a",
    leader_url="ssh://a.example:2222",
    leader_alive=True,
)


@pytest.mark.parametrize("raw", COMMANDS)
@pytest.mark.parametrize("access", ["read", "write", "admin", "peer"])
def test_access_decides_what_may_be_asked_for(raw: str, access: str) -> None:
    """77 if the access does not allow it. For users there are no commands of peers."""
    refusal = authorise(Identity("alice", cast("Access", access), "", ""), parse_command(raw))
    if access in COMMANDS[raw].split():
        assert refusal is None
    else:
        assert refusal is not None
        peers_only = raw.startswith("stargate-")
        assert refusal.exit_code == (64 if peers_only else 77)
        assert ("unknown command" if peers_only else "not allowed: alice") in refusal.message


def test_only_changes_pass_the_gate() -> None:
    """Reads need no leader."""
    changing = {raw for raw in COMMANDS if writes(parse_command(raw))}
    assert changing == {"git-receive-pack a", "repo create a", "repo delete a"}


def test_a_leader_refuses_nothing() -> None:
    """Only `accepting` counts."""
    assert gate(replace(STANDBY, accepting=True)) is None


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (STANDBY, "not leader: node-b is a standby; the leader is node-a at ssh://git@a.example:2222"),
        (replace(STANDBY, leader_url=None), "not leader: node-b is a standby; the leader is node-a"),
        (
            replace(STANDBY, leader_alive=False),
            "not leader: node-b is a standby; no leader is known yet, try again",
        ),
        (
            replace(STANDBY, leader=None, leader_url=None, leader_alive=False),
            "not leader: node-b is a standby; no leader is known yet, try again",
        ),
        (replace(STANDBY, leader="node-b"), "not leader: node-b takes no writes at the moment, try again"),
    ],
)
def test_a_standby_says_in_one_line_where_to_go(view: GateView, message: str) -> None:
    """Exit code 9, and "not leader" is in the text."""
    refusal = gate(view)
    assert refusal is not None
    assert refusal.exit_code == 9
    assert refusal.message == message
