"""`git kv mset`."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from stargate_gate.cli.kv.options import common, common_options
from stargate_gate.cli.kv.output import print_json, print_written
from stargate_gate.kv.batch import operations
from stargate_gate.kv.writing import write


@click.command("mset")
@click.option("--file", metavar="F.jsonl", required=True, help="The operations, one a line; - is stdin.")
@common_options
def command(file: str, **said: Any) -> None:
    """Apply many operations in one transaction: all of them or none.

    \b
    Each line of the file is one of
      {"op":"set", "key":"k", "value":"text"}
      {"op":"set", "key":"k", "value_b64":"AAH/", "ctype":"image/png", "ttl":"7d"}
      {"op":"set", "key":"k", "file":"path", "expect":"absent"}
      {"op":"del", "key":"k"}

    They are applied in order. Paths are relative to the current directory. If one fails (del of a key
    without a value, an expectation that is not met), nothing is written.
    """  # noqa: D301 - \b is click's mark for a block that must not be wrapped
    what = common(**said)
    lines = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    found = list(operations(lines.split(b"\n"), datetime.now(UTC), lambda path: Path(path).read_bytes()))
    if not found:
        if what.json:
            print_json({"ns": what.namespace, "txn": None, "commit": None, "oids": {}})
        return
    with what.store() as (store, pace):
        print_written(what, write(store, found, pace))
