"""A click group that imports a command's module only when that command runs.

`stargate health` is run by monitoring every few seconds: it must not import an SSH server.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import click


@dataclass(frozen=True)
class Entry:
    """One command: its name, its place as "module:attribute", and a line for the overview."""

    name: str
    place: str
    help: str


@dataclass(frozen=True)
class Section:
    """Commands that belong together in the overview."""

    title: str
    entries: tuple[Entry, ...]


class LazyGroup(click.Group):
    """A click.Group whose commands are the entries of `sections`."""

    def __init__(self, *args: object, sections: Sequence[Section], **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type] # passed on
        self._sections = tuple(sections)
        self._entries = {entry.name: entry for section in sections for entry in section.entries}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names in the order of the overview. Called by click."""
        return list(self._entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import the command; None if there is none of that name. Called by click."""
        entry = self._entries.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.place.partition(":")
        return cast("click.Command", getattr(importlib.import_module(module), attribute))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """Write the overview without importing any command. Called by click."""
        for section in self._sections:
            with formatter.section(section.title):
                formatter.write_dl([(entry.name, entry.help) for entry in section.entries])
