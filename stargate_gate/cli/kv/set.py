"""`git kv set`."""

import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from stargate_gate.cli.kv.options import common, common_options
from stargate_gate.cli.kv.output import print_written
from stargate_gate.kv.durations import seconds
from stargate_gate.kv.keys import check_key
from stargate_gate.kv.records import DEFAULT_CTYPE, timestamp
from stargate_gate.kv.transaction import Put, check_expected
from stargate_gate.kv.writing import write


@click.command("set")
@click.argument("key")
@click.argument("value")
@click.option("--ttl", metavar="DURATION", help="How long the value is valid: 30s, 15m, 12h, 7d.")
@click.option("--ctype", metavar="TYPE", default=DEFAULT_CTYPE, show_default=True, help="Its content type.")
@click.option(
    "--expect", metavar="OID|absent", help="Only if the key or the ledger has this OID now; else exit 2."
)
@common_options
def command(key: str, value: str, ttl: str | None, ctype: str, expect: str | None, **said: Any) -> None:
    """Give KEY a VALUE: the text itself, - for stdin, or @FILE for a file's bytes.

    OID is that of the value (`git kv get --json`) or of the ledger's commit. Use stdin for a text that
    begins with - or @.
    """
    what = common(**said)
    check_key(key)
    put = Put(key, _bytes(value), ctype, _expiry(ttl), check_expected(expect))
    with what.store() as (store, pace):
        print_written(what, write(store, [put], pace))


def _bytes(value: str) -> bytes:
    if value == "-":
        return sys.stdin.buffer.read()
    if value.startswith("@"):
        with open(value[1:], "rb") as file:  # noqa: PTH123 - importing pathlib takes a tenth of the start-up time
            return file.read()
    return value.encode(errors="surrogateescape")


def _expiry(ttl: str | None) -> str | None:
    return None if ttl is None else timestamp(datetime.now(UTC) + timedelta(seconds=seconds(ttl)))
