"""The options of every command of `git kv`. They may be before or after the command's name."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import click

from stargate_gate.kv.durations import seconds
from stargate_gate.kv.keys import check_namespace
from stargate_gate.kv.pace import Pace
from stargate_gate.kv.store import Store

DEFAULT_TIMEOUT_S = 30.0

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Common:
    """The values of the common options."""

    namespace: str = "main"
    remote: str = "origin"
    json: bool = False
    timeout_s: float = DEFAULT_TIMEOUT_S

    @contextmanager
    def store(self) -> Iterator[tuple[Store, Pace]]:
        """Open the namespace; the time limit starts now."""
        pace = Pace(self.timeout_s)
        with Store(check_namespace(self.namespace), self.remote) as store:
            yield store, pace


def _timeout(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    return None if value is None else seconds(value)


_OPTIONS = (
    click.option("--ns", "namespace", metavar="NAME", help="The namespace.  [default: main]"),
    click.option("--remote", metavar="NAME", help="The remote.  [default: origin]"),
    click.option("--json", is_flag=True, default=None, help="Print JSON."),
    click.option(
        "--timeout", "timeout_s", metavar="DURATION", callback=_timeout,
        help="How long to try while no leader answers.  [default: 30s]",
    ),
)  # fmt: skip


def common_options(command: F) -> F:
    """Add the options, as keyword arguments that are None if not given; see `common`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def common(**said: Any) -> Common:
    """The options after the command's name, else those before it, else the defaults."""
    before = click.get_current_context().find_object(Common) or Common()
    return replace(before, **{name: value for name, value in said.items() if value is not None})
