"""`stargate status`: the report of the node on this machine."""

from pathlib import Path

import click

from stargate_gate.cli.running_node import ask_node, config_option, show


@click.command("status")
@config_option
@click.option("--json", "as_json", is_flag=True, help="For programs: what /status gives over HTTP.")
def status(config_file: Path | None, *, as_json: bool) -> int:
    """Who leads, and is all well?"""
    return show(ask_node(config_file, "status", {"json": as_json}))
