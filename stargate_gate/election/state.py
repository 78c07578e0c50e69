"""What this data_dir knows of its cluster, durably: data_dir/state/election.json."""

import threading
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from stargate_gate.datadir.files import read_json, write_json_durably
from stargate_gate.election.eligibility import Known
from stargate_gate.election.incarnation import noted, settled
from stargate_gate.election.port import ClusterRecord
from stargate_gate.errors import ConfigurationError, ElectionUnavailableError
from stargate_gate.formats import ELECTION

FILE_NAME = "election.json"


class ElectionState:
    """`Known`, on disk before it is acted upon.

    Methods block (fsync), may run in any thread, and raise ElectionUnavailableError when the disk fails.
    """

    def __init__(self, path: Path) -> None:
        """Read `path`, data_dir/state/election.json; it need not exist.

        Raises:
            ConfigurationError: it is damaged, cannot be read, or a newer version has written it.
        """
        self.path = path
        self._lock = threading.Lock()
        self._known = _load(path)

    @property
    def known(self) -> Known:
        """What is known, and on disk, now."""
        return self._known

    def note(self, record: ClusterRecord) -> None:
        """Join the record's cluster if none was joined; remember its term and this node's membership.

        Raises:
            ElectionUnavailableError: not noted: do not act on it.
        """
        known = self._known
        if known.cluster_id is None:
            self._update(cluster_id=record.cluster_id)
        if record.term > known.highest_term:
            self._update(highest_term=record.term)
        self._update(incarnations=settled(self._known.incarnations, record))

    def noted(self, record: ClusterRecord) -> bool:
        """Whether all of the record that matters is noted already."""
        known = self._known
        return (
            known.cluster_id is not None
            and record.term <= known.highest_term
            and settled(known.incarnations, record) == known.incarnations
        )

    def note_incarnation(self, incarnation: str) -> None:
        """The record may name this incarnation for this node from now on."""
        self._update(incarnations=noted(self._known.incarnations, incarnation))

    def reserve(self, term: int) -> None:
        """Never use `term` or a smaller one again."""
        self._update(reserved_term=max(term, self._known.reserved_term))

    def note_checked(self, term: int, position: int) -> None:
        """Every repository was checked against the leader of `term`."""
        self._update(checked_term=term, position=position)

    def note_lock_file(self, lock_file: tuple[int, int]) -> None:
        """The lock file is this one from now on."""
        self._update(lock_file=lock_file)

    def _update(self, **changes: Any) -> None:
        with self._lock:
            known = replace(self._known, **changes)
            if known != self._known:
                try:
                    write_json_durably(self.path, asdict(known), ELECTION)
                except OSError as error:
                    raise ElectionUnavailableError(
                        f"{self.path} cannot be written ({error.strerror}): make room, or repair the disk"
                    ) from error
                self._known = known


def _load(path: Path) -> Known:
    try:
        return _parse(read_json(path, ELECTION) or {})
    except (OSError, ValueError, TypeError, LookupError) as error:
        detail = error.strerror if isinstance(error, OSError) else "it is damaged"
        problem = (
            f"{path} cannot be read ({detail}), so the node does not know which cluster it belongs to: "
            f"restore the file, or move it away to join afresh as a standby"
        )
        raise ConfigurationError([problem]) from error


def _parse(value: Mapping[str, Any]) -> Known:
    """Keys that an older version did not write keep their defaults. Raises ValueError and the like."""
    checked_term, lock_file = value.get("checked_term"), value.get("lock_file")
    if not isinstance(value.get("cluster_id", ""), str | None):
        raise TypeError("cluster_id")
    return Known(
        cluster_id=value.get("cluster_id"),
        highest_term=int(value.get("highest_term", 0)),
        reserved_term=int(value.get("reserved_term", 0)),
        checked_term=None if checked_term is None else int(checked_term),
        position=int(value.get("position", 0)),
        lock_file=None if lock_file is None else (int(lock_file[0]), int(lock_file[1])),
        incarnations=tuple(str(one) for one in value.get("incarnations", ())),
    )
