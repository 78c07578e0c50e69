"""`stargate check-config FILE`: prints every problem of a node's YAML file, or a summary."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from stargate_gate.access.key_file import read_authorized_keys
from stargate_gate.address.items import addresses_of
from stargate_gate.cli.places import require_own_data_dir
from stargate_gate.config.endpoint import Endpoint
from stargate_gate.config.findings import dotted
from stargate_gate.config.load import load_checked_config
from stargate_gate.config.location import config_path
from stargate_gate.config.model import Config
from stargate_gate.config.rules import doubtful
from stargate_gate.errors import ConfigurationError


@click.command("check-config")
@click.argument("file", required=False, type=click.Path(path_type=Path))
def check_config(file: Path | None) -> None:
    """Check a node's YAML file and the files that it names, without starting anything.

    Without FILE, it checks what `stargate serve` would use. It prints a summary; or every problem on
    stderr, and exits with 78. A warning is about a value that is allowed but probably a mistake.
    """
    config = load_checked_config(file)
    require_own_data_dir(config)
    path = config_path(file)
    users = list(_users(config))
    click.echo(f"ok: {click.format_filename(path) if path else 'no file, all defaults'}")
    for word, text in (*summary(config), *users):
        click.echo(f"  {word:<8} {text}")
    for finding in doubtful(config):
        click.echo(f"warning: {dotted(finding.key)}: {finding.text}", err=True)


def summary(config: Config) -> Iterator[tuple[str, str]]:
    """A summary of the configuration in a few (word, text) lines."""
    yield "node", f"{config.node.name}, data in {config.node.data_dir}"
    if config.cluster is None:
        yield "cluster", "none: a single node that leads by itself"
    else:
        yield "cluster", f"{config.cluster.name} at {config.cluster.address}, mode {config.replication.mode}"
        yield "lock", f"{config.election.flock.path} ({config.election.engine})"
    advertised = f"; peers reach it at {config.ssh.advertise}" if config.ssh.advertise else ""
    yield "ssh", f"listens on {_joined(config.ssh.listen)}{advertised}"
    moved = (one.name for one in addresses_of(config))
    yield "address", "; ".join(moved) or "moved by something else"
    yield "health", f"http on {_joined(config.health.listen)}"


def _users(config: Config) -> Iterator[tuple[str, str]]:
    """How many keys are valid, and what is wrong with the other lines.

    Raises:
        ConfigurationError: there are lines but no valid key, or no key in the file that `ssh.authorized_keys`
            names: nobody could log in.
    """
    path = config.authorized_keys_path
    try:
        keys = read_authorized_keys(path)
    except FileNotFoundError:
        yield "users", f"nobody can log in yet: put public keys into {path}, one a line"
        return
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError([f"ssh.authorized_keys: {path}: {why}"]) from None
    usable, lines = len(keys.entries), keys.lines
    if not usable and (lines or config.ssh.authorized_keys is not None):
        problem = (
            f"ssh.authorized_keys: {path}: {_counted(lines, 'line')}, 0 usable keys, so nobody can log in"
        )
        raise ConfigurationError([problem, *(f"ssh.authorized_keys: {path}: {one}" for one in keys.problems)])
    yield "users", f"{_counted(usable, 'usable key')} in {_counted(lines, 'line')} of {path}"
    for one in keys.problems:
        yield "", f"! {one}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _joined(endpoints: Sequence[Endpoint]) -> str:
    return ", ".join(map(str, endpoints))
