"""`stargate repo`: the repositories of the node on this machine."""

from pathlib import Path

import click

from stargate_gate.cli.running_node import ask_node, config_option, show

WRITE_LIMIT_S = 120.0  # the node's own limit for a command: creating waits for the sync set


@click.group("repo")
def repo() -> None:
    """List, create and delete repositories.

    Only the leader creates and deletes, as over SSH.
    """


@repo.command("list")
@config_option
def list_(config_file: Path | None) -> int:
    """One name a line, without .git."""
    return show(ask_node(config_file, "repo-list", limit_s=WRITE_LIMIT_S))


@repo.command("create")
@config_option
@click.option(
    "--object-format",
    type=click.Choice(["sha1", "sha256"]),
    default="sha1",
    show_default=True,
    help="The hash of object ids; cannot be changed later.",
)
@click.argument("name")
def create(config_file: Path | None, object_format: str, name: str) -> int:
    """Create the empty repository NAME, as in org/app."""
    args = {"name": name, "object_format": object_format}
    return show(ask_node(config_file, "repo-create", args, limit_s=WRITE_LIMIT_S))


@repo.command("delete")
@config_option
@click.argument("name")
def delete(config_file: Path | None, name: str) -> int:
    """Move the repository NAME to the trash, on every node.

    It is kept there for repositories.trash_days.
    """
    return show(ask_node(config_file, "repo-delete", {"name": name}, limit_s=WRITE_LIMIT_S))
