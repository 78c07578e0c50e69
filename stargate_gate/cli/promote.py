"""`stargate promote --accept-data-loss`: the operator's override of who may lead."""

from pathlib import Path

import click

from stargate_gate.cli.running_node import ask_node, config_option, show
from stargate_gate.errors import UsageError

PROMOTE_LIMIT_S = 120.0  # as the node's own limit on a command

WHAT_IT_DOES = """\
promote makes the node on this machine try for the leadership although it may not hold every
acknowledged push. Use it when the last leader and every member of the sync set are gone for good.

- Pushes that this node has not received are not here. Should a node that has them come back, it
  follows this one, and what only it had is overwritten: copy its repositories/ before you start it.
- A leader that lives is not deposed: the node still has to get the leader lock.

`stargate status` on each node tells who leads and how far behind each one is.
"""


@click.command("promote")
@config_option
@click.option("--accept-data-loss", is_flag=True, help="Required: say that you have read the above.")
def promote(config_file: Path | None, *, accept_data_loss: bool) -> int:
    """Make it lead although it may lack pushes.

    Prints what that means. Without --accept-data-loss nothing is done.
    """
    click.echo(WHAT_IT_DOES, err=True)
    if not accept_data_loss:
        raise UsageError("nothing was done: promote needs --accept-data-loss")
    args = {"accept_data_loss": True}
    return show(ask_node(config_file, "promote", args, limit_s=PROMOTE_LIMIT_S))
