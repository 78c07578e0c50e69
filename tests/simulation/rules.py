"""The rules that keep the promises: the product's own pure functions, and what its shells see to.

A mutation is this with one rule changed; see mutations.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stargate_gate.election import eligibility, term
from stargate_gate.election.flock import steps
from stargate_gate.replication.leader import sync_rules
from stargate_gate.replication.rescue import unreplicated


@dataclass(frozen=True)
class Rules:
    """What the nodes of a simulated cluster go by."""

    claim: Callable[..., Any] = steps.claim
    write: Callable[..., Any] = steps.write
    keep: Callable[..., Any] = steps.keep
    decide: Callable[..., Any] = eligibility.decide
    distrust: Callable[..., Any] = eligibility.distrust
    carried_over: Callable[..., Any] = eligibility.carried_over
    needed: Callable[..., Any] = eligibility.needed
    either: Callable[..., Any] = term._both
    carried: Callable[..., Any] = sync_rules.carried
    distrusted: Callable[..., Any] = unreplicated.distrusted

    # What the shells see to.
    look_again_under_lock: bool = True
    end_mirror_before_claim: bool = True
    sync_objects: bool = True
    check_old_values: bool = True
    wait_for_advertisement: str = "after the capture"
    lease: bool = True
    gate_again: bool = True
    reap_pushes: bool = True
    mark_before_push: bool = True
    carry_forced: bool = True
    distrust_forced: bool = True
    read_notes: bool = True
