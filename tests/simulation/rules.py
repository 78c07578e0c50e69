"""The rules that keep the promises: the product's own pure functions, and what its shells see to.

A mutation is this with one rule changed; see mutations.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stargate_gate.election import eligibility, term
from stargate_gate.election.flock import steps
from stargate_gate.replication.leader import backlog, sync_rules
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
    wanted: Callable[..., Any] = sync_rules.wanted
    next_stage: Callable[..., Any] = sync_rules.next_stage
    required: Callable[..., Any] = sync_rules.required
    judge: Callable[..., Any] = sync_rules.judge
    backlog: Callable[..., Any] = backlog.Backlog
    distrusted: Callable[..., Any] = unreplicated.distrusted

    # What the shells see to.
    look_again_under_lock: bool = True
    end_mirror_before_claim: bool = True
    sync_before_telling: bool = True
    read_before_syncing: bool = True  # what the leader tells is what it has synced, and not newer
    shown_is_told_anew: bool = True  # what a list or a snapshot showed untold gets a number of its own
    sync_objects: bool = True
    check_old_values: bool = True
    check_term_of_standby: bool = True
    require_before_recording: bool = True
    level_from_where_required: bool = True  # and not from where the list that it confirmed began
    wait_for_advertisement: str = "after the capture"
    lease: bool = True
    gate_again: bool = True
    reap_pushes: bool = True
    mark_before_push: bool = True
    note_what_is_told: bool = True
    carry_forced: bool = True
    distrust_forced: bool = True
    snapshots_are_numbered: bool = True
    forget_in_async: bool = False
    ids: bool = True  # what has the name of a push's repository, and not its id, is another one
    joins_anew: bool = True  # who joins the sync set again gets another incarnation
