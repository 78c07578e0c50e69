"""`stargate check-config FILE`: everything that is wrong with a node's YAML file, or a summary."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from stargate_gate.address.items import addresses_of
from stargate_gate.config.endpoint import Endpoint
from stargate_gate.config.findings import dotted
from stargate_gate.config.load import load_checked_config
from stargate_gate.config.location import config_path
from stargate_gate.config.model import Config
from stargate_gate.config.rules import doubtful
from stargate_gate.gate.keyfile import HOW_TO_ADD_A_KEY
from stargate_gate.gate.keys import MAX_FILE_BYTES, parse_authorized_keys


@click.command("check-config")
@click.argument("file", required=False, type=click.Path(path_type=Path))
def check_config(file: Path | None) -> None:
    """Check a node's YAML file and what it points at, without starting anything.

    Without FILE: what `stargate serve` would use. Prints a summary, or every problem at once on
    stderr and exits with 78. A warning is about what works and is probably not meant.
    """
    config = load_checked_config(file)
    path = config_path(file)
    click.echo(f"ok: {click.format_filename(path) if path else 'no file, all defaults'}")
    for word, text in summary(config):
        click.echo(f"  {word:<8} {text}")
    keys = [] if config.ssh.authorized_keys is None else _keys(config.authorized_keys_path)[1]
    for warning in (*_doubtful(config), *keys):
        click.echo(f"warning: {warning}", err=True)


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
    yield "users", f"{_keys(config.authorized_keys_path)[0]} in {config.authorized_keys_path}"
    moved = (one.name for one in addresses_of(config))
    yield "address", "; ".join(moved) or "moved by something else"
    yield "health", f"http on {_joined(config.health.listen)}"


def _joined(endpoints: Sequence[Endpoint]) -> str:
    return ", ".join(map(str, endpoints))


def _doubtful(config: Config) -> Iterator[str]:
    for finding in doubtful(config):
        yield f"{dotted(finding.key)}: {finding.text}"


def _keys(path: Path) -> tuple[str, list[str]]:
    """How many keys the file has, and what is wrong with its lines; a default file need not be there yet."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError:
        return "no keys yet", [f"nobody can log in: there is no {path}; {HOW_TO_ADD_A_KEY.format(path=path)}"]
    keys = parse_authorized_keys(content)
    count = len(keys.entries)
    warnings = [f"{path}: {problem}" for problem in keys.problems]
    if not count:
        warnings.append(f"nobody can log in: no key in {path} can be used")
    return f"{count} {'key' if count == 1 else 'keys'}", warnings
