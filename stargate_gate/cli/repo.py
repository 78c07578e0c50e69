"""`stargate repo`: the repositories of the node on this machine."""

import json
from collections.abc import Iterator
from pathlib import Path

import click

from stargate_gate.cli.running_node import ask_node, config_option, show
from stargate_gate.control.client import Answer
from stargate_gate.exitcodes import ExitCode

WRITE_LIMIT_S = 120.0  # the node's own limit for a command: creating waits for the sync set
VERIFY_LIMIT_S = 9 * 86_400.0  # the node's own limit, and some more
LIST_LIMIT_S = 60.0
WORST = (ExitCode.UNAVAILABLE, ExitCode.TRY_AGAIN, ExitCode.NO_REPOSITORY)  # of several, this one is returned


@click.group("repo")
def repo() -> None:
    """List, create, delete and verify repositories.

    Only the leader creates and deletes, as over SSH. Each node verifies its own copies.
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


@repo.command("verify")
@config_option
@click.option("--all", "every", is_flag=True, help="All repositories, one after the other.")
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object.")
@click.argument("name", required=False)
def verify(config_file: Path | None, *, every: bool, as_json: bool, name: str | None) -> int:
    """Check this node's copy of the repository NAME now.

    Reads all of it: checksums, refs, and whether every object is there. It works on every node, and while
    pushes go on.

    The exit status is 0 if it is sound, 69 if it is damaged, 75 if it could not be checked, 66 if there is
    none here. With --all, the first of 69, 75 and 66 that one of them has.
    """
    if every == (name is not None):
        raise click.UsageError("name one repository, or give --all")
    answers = []
    for answer in _verified(config_file, name):
        answers.append(answer)
        if not as_json:
            show(answer)
    if as_json:
        found = [answer.data for answer in answers if answer.data is not None]
        click.echo(json.dumps({"repositories": found}, indent=2))
        for answer in answers:
            show(answer._replace(output=""))
    statuses = {answer.exit for answer in answers} - {ExitCode.OK}
    return next((status for status in WORST if status in statuses), min(statuses, default=ExitCode.OK))


def _verified(config_file: Path | None, name: str | None) -> Iterator[Answer]:
    """The node's answer about one repository, or about each."""
    names = [name]
    if name is None:
        names = ask_node(config_file, "repo-verify-names", limit_s=LIST_LIMIT_S).data or []
    for one in names:
        yield ask_node(config_file, "repo-verify", {"name": one}, limit_s=VERIFY_LIMIT_S)
