"""The cluster record as bytes: what every engine writes, wherever it keeps it. Pure.

A JSON object with sorted keys and no blanks, so that one record always gives the same bytes: an engine may
compare them. Checksums, copies and versions of the format around it are the engine's (see flock/slots.py).
"""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from stargate_gate.election.port import ClusterRecord, Member

_T = TypeVar("_T")


def encode_record(record: ClusterRecord) -> bytes:
    """The bytes of `record`."""
    return json.dumps(record_to_json(record), separators=(",", ":"), sort_keys=True).encode()


def decode_record(content: bytes) -> ClusterRecord:
    """The record that `encode_record` gave.

    Raises:
        ValueError: it is none.
    """
    try:
        return record_from_json(json.loads(content))
    except (KeyError, TypeError) as error:
        raise ValueError(f"no cluster record: {error}") from error


def record_to_json(record: ClusterRecord) -> dict[str, Any]:
    """The record as a JSON object."""
    return {
        "cluster_id": record.cluster_id,
        "term": record.term,
        "version": record.version,
        "leader": _member_to_json(record.leader),
        "ssh": record.ssh,
        "http": record.http,
        "host_keys": list(record.host_keys),
        "mode": record.mode,
        "sync_set": [_member_to_json(member) for member in record.sync_set],
        "position": record.position,
        "clean": record.clean,
        "successor": record.successor and _member_to_json(record.successor),
        "forced": record.forced,
        "incarnations": dict(record.incarnations),
    }


def record_from_json(value: Mapping[str, Any]) -> ClusterRecord:
    """The record that `record_to_json` gave. Unknown keys are ignored, so that newer nodes may add some.

    `forced` and `incarnations` are two that older nodes did not write.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    return ClusterRecord(
        cluster_id=_typed(value, "cluster_id", str),
        term=_typed(value, "term", int),
        version=_typed(value, "version", int),
        leader=_member_from_json(value["leader"]),
        ssh=_typed(value, "ssh", str),
        http=_typed(value, "http", str),
        host_keys=tuple(str(key) for key in _typed(value, "host_keys", list)),
        mode=_typed(value, "mode", str),
        sync_set=tuple(_member_from_json(member) for member in _typed(value, "sync_set", list)),
        position=_typed(value, "position", int),
        clean=_typed(value, "clean", bool),
        successor=None if value["successor"] is None else _member_from_json(value["successor"]),
        forced=_typed({"forced": 0, **value}, "forced", int),
        incarnations=_incarnations(_typed({"incarnations": {}, **value}, "incarnations", dict)),
    )


def _incarnations(value: Mapping[Any, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((str(data_dir_id), str(one)) for data_dir_id, one in value.items()))


def _typed(value: Mapping[str, Any], key: str, kind: type[_T]) -> _T:
    found = value[key]
    if not isinstance(found, kind):
        raise TypeError(key)
    return found


def _member_to_json(member: Member) -> list[str]:
    return [member.name, member.data_dir_id]


def _member_from_json(value: Any) -> Member:
    name, data_dir_id = value
    return Member(str(name), str(data_dir_id))
