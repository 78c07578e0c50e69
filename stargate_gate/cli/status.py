"""`stargate status`: prints the report of the node on this machine."""

import os
import sys
from pathlib import Path

import click

from stargate_gate.cli.running_node import ask_node, config_option, show
from stargate_gate.errors import NotAllowedError, UnavailableError
from stargate_gate.health.concerns import Level

COLOURS = {Level.WELL: "green", Level.WARNING: "yellow", Level.CRITICAL: "red", Level.UNKNOWN: "yellow"}


@click.command("status")
@config_option
@click.option("--json", "as_json", is_flag=True, help="For programs: what /status gives over HTTP.")
def status(config_file: Path | None, *, as_json: bool) -> int:
    """Who leads, and is all well?

    The exit status is that of monitoring plug-ins: 0 all is well, 1 warning, 2 critical, 3 unknown (no
    node runs here, or it does not know yet).
    """
    try:
        answer = ask_node(config_file, "status", {"json": as_json})
    except (UnavailableError, NotAllowedError) as error:
        click.echo(f"stargate: {error.message}", err=True)
        return Level.UNKNOWN
    level = Level(answer.exit) if answer.exit in {*Level} else Level.UNKNOWN
    coloured = not as_json and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    page = in_colour(answer.output, level) if coloured else answer.output
    return show(answer._replace(exit=level, output=page))


def in_colour(page: str, level: Level) -> str:
    """Colour the page: the headline in bold in the colour of its level, the "!" labels in theirs."""
    head, blank, body = page.partition("\n\n")
    headline = "\n".join(click.style(line, fg=COLOURS[level], bold=True) for line in head.split("\n"))
    return headline + blank + "".join(map(_label_in_colour, body.splitlines(keepends=True)))


def _label_in_colour(line: str) -> str:
    for level, colour in COLOURS.items():
        label = f"! {level.word}"
        if line.startswith(label):
            return click.style(label, fg=colour, bold=True) + line.removeprefix(label)
    return line
