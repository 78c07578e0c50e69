"""Compares this node's SSH host keys with the leader's.

Users reach all nodes under one address. If the nodes had different host keys, users' clients would report an
attack after a failover. So a node with other keys than the leader's ends with an error.
"""

import functools
from collections.abc import Collection
from typing import NoReturn

from stargate_gate.election.elector import Elector
from stargate_gate.election.port import ClusterRecord
from stargate_gate.election.status import LeadershipView
from stargate_gate.errors import ConfigurationError

VIEW_LIMIT_S = 3600.0  # the keys are compared at least this often


async def watch_host_keys(elector: Elector, mine: Collection[str]) -> NoReturn:
    """Compare this node's fingerprints with those of every leader that the record names.

    Raises:
        ConfigurationError: this node's host keys are not the leader's.
    """
    while True:
        record = elector.view().record
        if record is not None and record.leader != elector.me and record.host_keys:
            _require_same(record, frozenset(mine))
        await elector.wait_for(functools.partial(_differs, record), VIEW_LIMIT_S)


def _differs(before: ClusterRecord | None, view: LeadershipView) -> bool:
    return view.record != before


def _require_same(record: ClusterRecord, mine: frozenset[str]) -> None:
    if frozenset(record.host_keys) != mine:
        theirs = ", ".join(sorted(record.host_keys))
        problem = (
            f"ssh.host_keys: the leader {record.leader.name} shows {theirs}, this node has "
            f"{', '.join(sorted(mine))}: copy the leader's host keys to this node"
        )
        raise ConfigurationError([problem])
