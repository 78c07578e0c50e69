"""`stargate rescued`: values that only an old leader had."""

from pathlib import Path

import click

from stargate_gate.cli.running_node import ask_node, config_option, show

RESTORE_LIMIT_S = 3700.0  # it may be a whole repository


@click.group("rescued")
def rescued() -> None:
    """List and restore what only this node had.

    That is, what it had when another one took over. Each value is kept in its repository on this node
    until it is restored or dropped.
    """


@rescued.command("list")
@config_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_(config_file: Path | None, *, as_json: bool) -> int:
    """What was rescued here, a line for each value."""
    return show(ask_node(config_file, "rescued-list", {"json": as_json}))


@rescued.command("restore")
@config_option
@click.option("--as", "as_ref", metavar="REF", help="The new name; default: refs/heads/rescued/TERM/...")
@click.option("--to", metavar="NAME", help="Another repository; default: where it was.")
@click.argument("name")
@click.argument("object_id", metavar="OBJECT")
def restore(config_file: Path | None, as_ref: str | None, to: str | None, name: str, object_id: str) -> int:
    """Push OBJECT of the repository NAME to the leader, as a new ref.

    An abbreviated object id will do. Nothing is overwritten: a name that is taken is refused.
    """
    args = {"name": name, "oid": object_id, "as": as_ref, "to": to}
    return show(ask_node(config_file, "rescued-restore", args, limit_s=RESTORE_LIMIT_S))


@rescued.command("drop")
@config_option
@click.argument("name")
@click.argument("object_id", metavar="OBJECT")
def drop(config_file: Path | None, name: str, object_id: str) -> int:
    """Give OBJECT of the repository NAME up: look at it before."""
    return show(ask_node(config_file, "rescued-drop", {"name": name, "oid": object_id}))
