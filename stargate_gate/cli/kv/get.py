"""`git kv get`."""

import sys
from typing import Any

import click

from stargate_gate.cli.kv.options import common, common_options
from stargate_gate.cli.kv.output import print_json, value_fields
from stargate_gate.kv.keys import check_key
from stargate_gate.kv.reading import get, snapshot


@click.command("get")
@click.argument("key")
@click.option("--offline", is_flag=True, help="Read what is here; ask nobody.")
@common_options
def command(key: str, offline: bool, **said: Any) -> None:  # noqa: FBT001 # click's
    """Write the value of KEY to stdout: its bytes and nothing else.

    With --json, an object with the value (`value`, or `value_b64` if it is not UTF-8), its `oid`, and what
    is known of it.
    """
    what = common(**said)
    check_key(key)
    with what.store() as (store, pace):
        value = get(store, snapshot(store, pace, offline=offline), key)
    if what.json:
        print_json(value_fields(value))
    else:
        sys.stdout.buffer.write(value.content)
