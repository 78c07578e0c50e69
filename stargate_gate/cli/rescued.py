"""`stargate rescued`: values that only this node had when another one took over."""

from pathlib import Path

import click

from stargate_gate.cli.running_node import ask_node, config_option, show

RESTORE_LIMIT_S = 3700.0  # it may push a whole repository


@click.group("rescued")
def rescued() -> None:
    """List and restore what only this node had.

    These are values that the node had when another one took over, and the new leader had not. Each is
    kept in its repository on this node until it is restored or dropped.
    """


@rescued.command("list")
@config_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_(config_file: Path | None, *, as_json: bool) -> int:
    """List the rescued values of this node, one a line."""
    return show(ask_node(config_file, "rescued-list", {"json": as_json}))


@rescued.command("restore")
@config_option
@click.option("--as", "as_ref", metavar="REF", help="The new name; default: refs/heads/rescued/TERM/...")
@click.option("--to", metavar="NAME", help="Another repository; default: the one it was in.")
@click.argument("name")
@click.argument("object_id", metavar="OBJECT")
def restore(config_file: Path | None, as_ref: str | None, to: str | None, name: str, object_id: str) -> int:
    """Push OBJECT of the repository NAME to the leader, as a new ref.

    An abbreviated object id is enough. A ref that exists is never overwritten.
    """
    args = {"name": name, "oid": object_id, "as": as_ref, "to": to}
    return show(ask_node(config_file, "rescued-restore", args, limit_s=RESTORE_LIMIT_S))


@rescued.command("drop")
@config_option
@click.argument("name")
@click.argument("object_id", metavar="OBJECT")
def drop(config_file: Path | None, name: str, object_id: str) -> int:
    """Delete the rescued OBJECT of the repository NAME. Look at it first."""
    return show(ask_node(config_file, "rescued-drop", {"name": name, "oid": object_id}))
