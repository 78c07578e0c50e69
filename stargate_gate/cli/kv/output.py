"""Prints the results of the commands."""

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from stargate_gate.cli.kv.options import Common
    from stargate_gate.kv.reading import Value
    from stargate_gate.kv.writing import Written


def print_json(fields: Mapping[str, Any]) -> None:
    """Print one object."""
    click.echo(json.dumps(fields, ensure_ascii=False))


def print_json_list(items: Iterable[Mapping[str, Any]]) -> None:
    """Print one array, an item a line."""
    lines = ",\n".join(json.dumps(item, ensure_ascii=False) for item in items)
    click.echo(f"[\n{lines}\n]" if lines else "[]")


def print_written(what: "Common", written: "Written") -> None:
    """With --json, print what a script can use later: the commit, and the values' oids for --expect."""
    if what.json:
        print_json(
            {"ns": what.namespace, "txn": written.txn, "commit": written.commit, "oids": dict(written.values)}
        )


def value_fields(value: "Value") -> dict[str, Any]:
    """A value with its meta data."""
    try:
        content = {"value": value.content.decode()}
    except UnicodeDecodeError:
        from base64 import b64encode  # noqa: PLC0415 - rarely needed, and start-up time matters

        content = {"value_b64": b64encode(value.content).decode()}
    meta = value.meta
    return {
        "key": value.key,
        **content,
        "oid": value.oid,
        "size": len(value.content),
        "ctype": meta.ctype,
        "ttl": meta.ttl,
        "etag": meta.etag,
        "created_by": meta.created_by,
        "created_at": meta.created_at,
    }
