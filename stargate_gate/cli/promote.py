"""`stargate promote --accept-data-loss`: lets a node lead that may not have every acknowledged push."""

from pathlib import Path

import click

from stargate_gate.cli.running_node import ask_node, config_option, show
from stargate_gate.errors import UsageError

PROMOTE_LIMIT_S = 120.0  # as the node's own limit on a command

WHAT_IT_DOES = """\
promote makes the node on this machine try to lead although it may not have every acknowledged push.
Use it when the last leader and every member of the sync set are lost for good. It does not remove a
leader that still runs: the node still has to get the leader lock.

What may be lost, as far as this node knows:
"""


@click.command("promote")
@config_option
@click.option("--accept-data-loss", is_flag=True, help="Required: you have read what may be lost.")
def promote(config_file: Path | None, *, accept_data_loss: bool) -> int:
    """Force this node to lead. Pushes may be lost.

    Without --accept-data-loss, nothing is done: it prints what may be lost. With it, only the first line
    of that is printed again.
    """
    risk = ask_node(config_file, "promote-risk")
    if risk.exit:
        return show(risk)
    lines = risk.output.splitlines()
    if accept_data_loss:  # the first call, without the flag, has shown all lines
        click.echo(f"accepted: {lines[0] if lines else ''}", err=True)
        args = {"accept_data_loss": True}
        return show(ask_node(config_file, "promote", args, limit_s=PROMOTE_LIMIT_S))
    click.echo(WHAT_IT_DOES, err=True)
    for line in lines:
        click.echo(f"  - {line}", err=True)
    click.echo(err=True)
    raise UsageError("nothing was done: promote needs --accept-data-loss")
