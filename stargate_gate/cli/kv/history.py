"""`git kv history`."""

from typing import Any

import click

from stargate_gate.cli.kv.options import common, common_options
from stargate_gate.cli.kv.output import print_json_list
from stargate_gate.kv.history import history
from stargate_gate.kv.keys import check_key
from stargate_gate.kv.reading import snapshot


@click.command("history")
@click.argument("key")
@click.option("--offline", is_flag=True, help="Read the local copy; ask no remote.")
@common_options
def command(key: str, offline: bool, **said: Any) -> None:  # noqa: FBT001 - click's
    """Print the changes of KEY, the newest first: commit, time, set or del, author.

    To see an old value: `git cat-file blob OID`, with the `oid` that --json shows.
    """
    what = common(**said)
    check_key(key)
    with what.store() as (store, pace):
        found = history(store, snapshot(store, pace, offline=offline), key)
    if what.json:
        print_json_list(one._asdict() for one in found)
    else:
        click.echo("".join(f"{one.commit} {one.when} {one.op} {one.by}\n" for one in found), nl=False)
