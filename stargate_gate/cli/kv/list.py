"""`git kv list`."""

from typing import Any

import click

from stargate_gate.cli.kv.options import common, common_options
from stargate_gate.cli.kv.output import print_json_list
from stargate_gate.kv.reading import keys, snapshot


@click.command("list")
@click.option("--prefix", default="", metavar="P", help="Only keys that begin with P.")
@click.option("--offline", is_flag=True, help="Read the local copy; ask no remote.")
@common_options
def command(prefix: str, offline: bool, **said: Any) -> None:  # noqa: FBT001 - click's
    """Print the keys whose value has not expired, one a line, sorted by their bytes."""
    what = common(**said)
    with what.store() as (store, pace):
        found = keys(store, snapshot(store, pace, offline=offline), prefix)
    if what.json:
        print_json_list(
            {"key": key.key, "oid": key.oid, "size": key.size, "ctype": key.ctype, "ttl": key.expires}
            for key in found
        )
    else:
        click.echo("".join(f"{key.key}\n" for key in found), nl=False)
