"""One run of the tests on an engine: a random prefix for every name, and nothing left behind.

Everything that a session makes carries its prefix and the label of its owner. It is removed when the session
is closed; by a process that waits for the owner's end when the owner is killed; and by the next session if
even that one was killed.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator
from typing import Self

import docker
from docker import DockerClient
from docker.errors import APIError
from docker.models.networks import Network
from docker.types import IPAMConfig, IPAMPool

from integration.engine import born
from integration.harness.cluster import Cluster, Plan
from integration.harness.image import TEST, built_image
from integration.harness.janitor import (
    CALL_LIMIT_S,
    CLUSTER_LABEL,
    OWNER_LABEL,
    SESSION_LABEL,
    Janitor,
    remove_all,
    remove_orphans,
)

# 198.18.0.0/15 is set aside for test beds (RFC 2544): no real network can be hidden by it.
SUBNETS = tuple(f"198.{18 + high}.{low}" for high in range(2) for low in range(256))


class Session:
    """`with Session() as session:` — makes clusters, and removes all that is left of them at the end."""

    def __init__(self) -> None:
        self.client: DockerClient = docker.from_env(timeout=CALL_LIMIT_S)
        self.prefix = f"stargate-{secrets.token_hex(3)}"
        self.labels = {SESSION_LABEL: self.prefix, OWNER_LABEL: f"{os.getpid()}:{born(os.getpid())}"}
        self.clusters: list[Cluster] = []
        self._number = 0
        self._janitor: Janitor | None = None

    def __enter__(self) -> Self:
        remove_orphans(self.client)
        self.image = built_image(self.client, TEST)
        self._janitor = Janitor(self.prefix)
        return self

    def __exit__(self, *_: object) -> None:
        remove_all(self.client, f"{SESSION_LABEL}={self.prefix}")
        self.client.close()
        if self._janitor is not None:
            self._janitor.dismiss()

    @contextlib.contextmanager
    def cluster(self, plan: Plan | None = None) -> Iterator[Cluster]:
        """Two nodes and a client, started, with both nodes in step; gone after the context."""
        self._number += 1
        name = f"{self.prefix}-{self._number}"
        labels = {**self.labels, CLUSTER_LABEL: name}
        network = self._network(name, labels)
        cluster = Cluster(self.client, self.image, labels=labels, network=network, plan=plan or Plan())
        self.clusters.append(cluster)
        try:
            cluster.start()
            yield cluster
        finally:
            self.clusters.remove(cluster)
            remove_all(self.client, f"{CLUSTER_LABEL}={name}")

    def free_subnet(self) -> str:
        """The first three numbers of addresses that no network has now."""
        network = self._network(f"{self.prefix}-probe", self.labels)
        network.reload()
        subnet: str = network.attrs["IPAM"]["Config"][0]["Subnet"]
        network.remove()
        return subnet.rpartition(".")[0]

    def _network(self, name: str, labels: dict[str, str]) -> Network:
        """An internal network that no other has: no way out of it, and none in but from this machine."""
        for subnet in secrets.SystemRandom().sample(SUBNETS, len(SUBNETS)):
            pool = IPAMPool(subnet=f"{subnet}.0/24", gateway=f"{subnet}.254")
            try:
                return self.client.networks.create(
                    name, driver="bridge", internal=True, labels=labels, ipam=IPAMConfig(pool_configs=[pool])
                )
            except APIError as error:
                if "overlaps" not in str(error):
                    raise
        raise RuntimeError("every test network is taken; docker network ls")
