"""Finds the node on this machine by its YAML file, and sends it a command."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from stargate_gate.config.load import load_config
from stargate_gate.control.client import ANSWER_LIMIT_S, Answer, ask
from stargate_gate.datadir.layout import DataDir

F = TypeVar("F", bound=Callable[..., Any])

config_option: Callable[[F], F] = click.option(
    "-c",
    "--config",
    "config_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The node's YAML file; else $STARGATE_CONFIG, else the built-in single node.",
)


def ask_node(
    config_file: Path | None,
    command: str,
    args: Mapping[str, Any] | None = None,
    *,
    limit_s: float = ANSWER_LIMIT_S,
) -> Answer:
    """Send `command` to the node that the YAML file describes.

    Raises:
        ConfigurationError: the file cannot be used.
        UnavailableError: the node does not run, or does not answer within `limit_s` seconds.
        NotAllowedError: the node belongs to another user.
    """
    data_dir = load_config(config_file).node.data_dir
    return ask(DataDir(data_dir, id="").control_socket, command, args, limit_s=limit_s)


def show(answer: Answer) -> int:
    """Print the node's answer; returns its exit status."""
    if answer.output:
        click.echo(answer.output, nl=not answer.output.endswith("\n"))
    if answer.error:
        click.echo(f"stargate: {answer.error}", err=True)
    return answer.exit
