"""`git kv del`."""

from typing import Any

import click

from stargate_gate.cli.kv.options import common, common_options
from stargate_gate.cli.kv.output import print_written
from stargate_gate.kv.errors import KvUsageError
from stargate_gate.kv.keys import check_key
from stargate_gate.kv.transaction import Drop, check_expected
from stargate_gate.kv.writing import write


@click.command("del")
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@click.option("--expect", metavar="OID", help="Only if the key or the ledger has this OID now; else exit 2.")
@common_options
def command(keys: tuple[str, ...], expect: str | None, **said: Any) -> None:
    """Delete these keys. If one of them does not exist, nothing is deleted (exit 1)."""
    what = common(**said)
    if expect is not None and len(keys) > 1:
        raise KvUsageError('--expect needs a single key; for several, write "expect" in the lines of mset')
    expected = check_expected(expect)
    drops = [Drop(check_key(key), expected) for key in dict.fromkeys(keys)]
    with what.store() as (store, pace):
        print_written(what, write(store, drops, pace))
