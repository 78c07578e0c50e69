"""`stargate bootstrap`: creates the leader lock of a new cluster, once."""

from collections.abc import Iterator
from pathlib import Path

import click

from stargate_gate.cli.places import require_own_data_dir, require_shared_volume
from stargate_gate.cli.running_node import config_option
from stargate_gate.config.load import load_checked_config
from stargate_gate.config.location import config_path
from stargate_gate.config.model import Config
from stargate_gate.datadir.layout import keep_name, open_data_dir
from stargate_gate.datadir.locks import NodeLock
from stargate_gate.election import engines
from stargate_gate.election.port import ClusterRecord, Member
from stargate_gate.election.state import FILE_NAME, ElectionState
from stargate_gate.errors import UsageError


@click.command("bootstrap")
@config_option
@click.option(
    "--local-volume",
    is_flag=True,
    help="The leader lock is on this machine's own disk: for a cluster whose nodes all run here.",
)
def bootstrap(config_file: Path | None, *, local_volume: bool) -> None:
    """Make a cluster's leader lock, once.

    Run it on one node before any node starts for the first time; this node will lead first. A second
    time it refuses. Nothing else creates this file, so that a shared volume which is not mounted is not
    mistaken for a new cluster. If nothing is mounted at its place, it is not created either.
    """
    config = load_checked_config(config_file)
    require_own_data_dir(config)
    if not local_volume:
        require_shared_volume(config)
    record = bootstrap_cluster(config)
    file = config_path(config_file)
    click.echo("\n".join(_report(config, record, str(file or "FILE"))))


def bootstrap_cluster(config: Config) -> ClusterRecord:
    """Make the leader lock that `config` names, and let its data_dir join; returns the first record.

    Raises:
        UsageError: the file describes no cluster, or the cluster was bootstrapped before.
        UnavailableError: a node runs on this data_dir, or the file cannot be made.
    """
    if config.cluster is None:
        raise UsageError(
            "there is no `cluster:` in the YAML file, and a single node needs no bootstrap: start it with "
            "`stargate serve`, or name a cluster's file with -c"
        )
    data_dir = open_data_dir(config.node.data_dir)
    with NodeLock.acquire(data_dir):
        keep_name(data_dir, config.node.name, is_host_name="name" not in config.node.model_fields_set)
        state = ElectionState(data_dir.state / FILE_NAME)
        return engines.bootstrap(config.election, state, Member(config.node.name, data_dir.id))


def _report(config: Config, record: ClusterRecord, file: str) -> Iterator[str]:
    cluster = config.cluster.name if config.cluster is not None else ""
    yield f"cluster {cluster} is made; its id is {record.cluster_id}"
    yield f"{record.leader.name} leads first; the leader lock is {config.election.flock.path}"
    yield ""
    yield "Next:"
    yield f"  1. Start this node:          stargate serve -c {file}"
    yield "  2. Copy to every other node, over a channel you trust:"
    shared = [*config.ssh.host_keys, config.authorized_keys_path]
    for path in ([config.cluster.key] if config.cluster is not None else []) + shared:
        yield f"       {path}"
    yield "     Write its YAML file, and:  stargate check-config FILE && stargate serve -c FILE"
    yield f"  3. Wait for its sync set:    stargate status -c {file}"
