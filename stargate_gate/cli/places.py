"""Checks the data_dir and the place of the leader lock before anything is created there."""

import ipaddress

from stargate_gate.config.endpoint import Endpoint
from stargate_gate.config.model import Config
from stargate_gate.datadir.layout import foreign_things
from stargate_gate.election.engines import data_dir_is_shared, nothing_is_shared
from stargate_gate.errors import ConfigurationError


def require_own_data_dir(config: Config, *, shared_volume: bool = True) -> None:
    """Check that the data_dir is not on the volume of the leader lock and contains no other files.

    With `shared_volume` false, that volume is not read, because it may hang.

    Raises:
        ConfigurationError: it is on that volume, or contains other files.
    """
    problems = []
    if config.cluster is not None:
        problems.append(data_dir_is_shared(config.election, config.node.data_dir, look=shared_volume))
    try:
        problems.append(foreign_things(config.node.data_dir))
    except OSError as error:
        problems.append(f"{config.node.data_dir} cannot be read ({error.strerror}): name a folder that can")
    if found := [f"node.data_dir: {problem}" for problem in problems if problem is not None]:
        raise ConfigurationError(found)


def require_shared_volume(config: Config) -> None:
    """Check that a volume is mounted where the leader lock will be.

    Not if others reach this node on loopback only, because then all nodes are on this machine.

    Raises:
        ConfigurationError: nothing is mounted there.
    """
    if _on_this_machine_only(config):
        return
    if (problem := nothing_is_shared(config.election, config.node.data_dir)) is not None:
        remedy = (
            "mount the shared volume, and run this again; only if all nodes run on this machine: stargate "
            "bootstrap --local-volume"
        )
        why = f"{problem}, and a second cluster made there would lead beside the first"
        raise ConfigurationError([f"election.flock.path: {why}: {remedy}"])


def _on_this_machine_only(config: Config) -> bool:
    reached = [config.ssh.advertise] if config.ssh.advertise is not None else list(config.ssh.listen)
    return all(map(_is_loopback, reached))


def _is_loopback(endpoint: Endpoint) -> bool:
    try:
        return ipaddress.ip_address(endpoint.host).is_loopback
    except ValueError:
        return endpoint.host == "localhost"
