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
@click.option("--offline", is_flag=True, help="Read the local copy; ask no remote.")
@common_options
def command(key: str, offline: bool, **said: Any) -> None:  # noqa: FBT001 - click's
    """Write the value of KEY to stdout, exactly its bytes.

    With --json, write an object with the value (`value`, or `value_b64` if it is not UTF-8), its `oid`, and
    its meta data.
    """
    what = common(**said)
    check_key(key)
    with what.store() as (store, pace):
        value = get(store, snapshot(store, pace, offline=offline), key)
    if what.json:
        print_json(value_fields(value))
    else:
        sys.stdout.buffer.write(value.content)
