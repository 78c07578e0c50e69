"""`stargate health`: whether the node on this machine works."""

from pathlib import Path

import click

from stargate_gate.cli.running_node import ask_node, config_option, show


@click.command("health")
@config_option
def health(config_file: Path | None) -> int:
    """Exit 0 while the node works, else 69.

    It works while it can write its data_dir, run git, and accept connections. It need not lead.
    """
    return show(ask_node(config_file, "health"))
