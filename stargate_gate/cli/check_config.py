"""`stargate check-config FILE`: everything that is wrong with a node's YAML file, or a summary."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from stargate_gate.address.items import addresses_of
from stargate_gate.cli.places import require_own_data_dir
from stargate_gate.config.endpoint import Endpoint
from stargate_gate.config.load import load_checked_config
from stargate_gate.config.location import config_path
from stargate_gate.config.model import Config


@click.command("check-config")
@click.argument("file", required=False, type=click.Path(path_type=Path))
def check_config(file: Path | None) -> None:
    """Check a node's YAML file and what it points at, without starting anything.

    Without FILE: what `stargate serve` would use. Prints a summary, or every problem at once on
    stderr and exits with 78.
    """
    config = load_checked_config(file)
    require_own_data_dir(config)
    path = config_path(file)
    click.echo(f"ok: {click.format_filename(path) if path else 'no file, all defaults'}")
    for word, text in summary(config):
        click.echo(f"  {word:<8} {text}")


def summary(config: Config) -> Iterator[tuple[str, str]]:
    """Who the node is, in a few (word, text) lines for people."""
    yield "node", f"{config.node.name}, data in {config.node.data_dir}"
    if config.cluster is None:
        yield "cluster", "none: a single node that leads by itself"
    else:
        yield "cluster", f"{config.cluster.name} at {config.cluster.address}, mode {config.replication.mode}"
        yield "lock", f"{config.election.flock.path} ({config.election.engine})"
    advertised = f"; peers reach it at {config.ssh.advertise}" if config.ssh.advertise else ""
    yield "ssh", f"listens on {_joined(config.ssh.listen)}{advertised}"
    yield "users", f"keys in {config.authorized_keys_path}"
    moved = (one.name for one in addresses_of(config))
    yield "address", "; ".join(moved) or "moved by something else"
    yield "health", f"http on {_joined(config.health.listen)}"


def _joined(endpoints: Sequence[Endpoint]) -> str:
    return ", ".join(map(str, endpoints))
