"""`stargate ready`: whether the node on this machine takes pushes."""

from pathlib import Path

import click

from stargate_gate.cli.running_node import ask_node, config_option, show


@click.command("ready")
@config_option
def ready(config_file: Path | None) -> int:
    """Exit 0 if it takes pushes, else 9.

    Only a leader accepts pushes, and only while it can prove that it leads.
    """
    return show(ask_node(config_file, "ready"))
