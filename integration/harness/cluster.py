"""Two nodes, a shared volume and a client, put together from a plan."""

import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from docker import DockerClient
from docker.models.containers import Container
from docker.models.networks import Network
from docker.types import EndpointConfig

from integration.harness import disks
from integration.harness.client import HOME, Client
from integration.harness.machine import Machine, eventually
from integration.harness.node import CONFIG, DATA_DIR, HTTP_PORT, LOCK, SSH_PORT, Leadership, Node

NODE_NAMES = ("node-a", "node-b")
FIRST_NODE = 11  # node-a is .11, node-b .12
CLIENT = 20
FIRST_EXTRA = 30
FLOATING = 100  # kept free for a floating address
SMALL = {"type": "tmpfs", "device": "tmpfs", "o": "size=32m,mode=0700,uid=2222,gid=2222"}
FOREVER = ["sleep", "infinity"]
CAPABILITIES = "+net_admin,+net_raw"
LAUNCHER = [
    *("/usr/local/libexec/stargate/setpriv", "--inh-caps", CAPABILITIES, "--ambient-caps", CAPABILITIES, "--")
]


@dataclass(frozen=True)
class Plan:
    """What is special about a cluster; the default is an ordinary pair.

    With `floating`, the nodes move `cluster.floating_address` themselves (kind vip) and `stargate.local` is
    that address; else the harness lets the name mean node-a, until a scenario says something else.
    `overrides` are merged into every node's YAML, section by section. The nodes' processes can gain no
    privileges, not even those of a file capability, unless `security_opt` is `()`.
    The volumes in `small` (of `lock`, `node-a`, `node-b`) are small file systems in memory, which a scenario
    can fill up; a machine `keeper` keeps their contents while nodes are down. With `lock_disk` the lock
    volume is a disk of its own, on the machine `disk`, that can turn read-only (`harness/disks.py`).
    """

    floating: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)
    security_opt: tuple[str, ...] = ("no-new-privileges",)
    small: frozenset[str] = frozenset()
    lock_disk: bool = False
    health_checks: bool = False


class Cluster:
    """`cluster["node-a"]`, `cluster.client`, `cluster.leader()`, `cluster.standby()`."""

    def __init__(
        self, engine: DockerClient, image: str, *, labels: Mapping[str, str], network: Network, plan: Plan
    ) -> None:
        self.name: str = network.name
        self.network = network
        self.plan = plan
        self.nodes: list[Node] = []
        self.machines: list[Machine] = []
        self._engine = engine
        self._image = image
        self._labels = dict(labels)
        self._extras = 0
        self._keys = _make_keys()

    # --- its parts

    def machine(self, name: str) -> Machine:
        """Any machine of the cluster."""
        return next(machine for machine in self.machines if machine.name == name)

    def __getitem__(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    @property
    def client(self) -> Client:
        """The developer's machine."""
        return next(machine for machine in self.machines if isinstance(machine, Client))

    @property
    def floating_address(self) -> str:
        """An address of the cluster's network that no machine has by itself."""
        return self.address(FLOATING)

    def address(self, host: int) -> str:
        """The address with that last number on the cluster's network."""
        subnet: str = self.network.attrs["IPAM"]["Config"][0]["Subnet"]
        return f"{subnet.rpartition('.')[0]}.{host}"

    def add_machine(self, name: str, command: list[str] | None = None, **options: Any) -> Machine:
        """One more machine on the network, root's, with the tests' tools: a load balancer, a name server, ….

        It runs `command`, or nothing until told to; `options` are the Docker SDK's for a container.
        """
        self._extras += 1
        address = self.address(FIRST_EXTRA + self._extras - 1)
        container = self._create(name, address, command or FOREVER, user="root", **options)
        machine = Machine(name, container, self.network, address, "root")
        self.machines.append(machine)
        machine.start()
        return machine

    def add_node(self, name: str) -> Node:
        """One more node, configured like the others and not yet started."""
        self._extras += 1
        node = self._node(name, self.address(FIRST_EXTRA + self._extras - 1))
        self.nodes.append(node)
        self.machines.append(node)
        return node

    def disks_of(self, node: Node) -> dict[str, dict[str, str]]:
        """The `volumes` option for a machine that has a stopped node's disk, and the shared volume."""
        return self._volumes(node.name)

    # --- who leads

    def leadership(self) -> Leadership | None:
        """The one node that takes writes, and its term; None while there is none, or two."""
        leading = [node for node in self.nodes if node.ready()]
        if len(leading) != 1:
            return None
        return Leadership(leading[0].name, int(leading[0].status().get("term", 0)))

    def leader(self) -> Node:
        """The node that leads and takes writes; waits for one."""
        return self[eventually(self.leadership, f"{self.name}: one leader").leader]

    def standby(self) -> Node:
        """The other node."""
        leader = self.leader()
        return next(node for node in self.nodes if node is not leader)

    def settled(self) -> bool:
        """Whether one node leads with all others in its sync set."""
        leading = self.leadership()
        if leading is None:
            return False
        others = {node.name for node in self.nodes} - {leading.leader}
        return set(self[leading.leader].status().get("sync_set", ())) == others

    def settle(self) -> tuple[Node, Node]:
        """Wait until one node leads with the other in its sync set; (leader, standby)."""
        leader, standby = self.leader(), self.standby()
        leader.wait_sync_set(standby.name)
        return leader, standby

    # --- start

    def start(self) -> None:
        """Make everything, bootstrap with node-a, start it, then node-b, and wait until they are in step."""
        if self.plan.lock_disk:
            self.add_machine(disks.NAME, disks.COMMAND, **disks.OPTIONS)
        for index, name in enumerate(NODE_NAMES):
            self.nodes.append(self._node(name, self.address(FIRST_NODE + index)))
        self.machines += [*self.nodes, self._client(self.address(CLIENT))]
        if self.plan.small:
            self.add_machine("keeper", volumes=self._small_volumes())
        first, second = self.nodes
        self._once(first, "bootstrap")
        first.start()
        self.client.start()
        first.wait_ready()
        second.start()
        first.wait_sync_set(second.name)
        self.client.point_name_at(self.floating_address if self.plan.floating else first.address)

    def report(self, lines: int = 150) -> str:
        """What there is to know of it when a test has failed: states and logs."""
        parts = []
        for machine in self.machines:
            state = machine.state()
            parts.append(f"--- {machine.name} {machine.address}: {state['Status']}, exit {state['ExitCode']}")
            parts.append(machine.logs(lines) if isinstance(machine, Node) else "")
        return "\n".join(parts)

    def node_config(self, name: str, address: str) -> dict[str, Any]:
        """The YAML of one node."""
        config: dict[str, Any] = {
            "node": {"name": name, "data_dir": DATA_DIR},
            "cluster": {
                "name": self.name,
                "address": f"stargate.local:{SSH_PORT}",
                "key": "/etc/stargate/cluster_ed25519_key",
            },
            "ssh": {
                "listen": f"0.0.0.0:{SSH_PORT}",
                "advertise": f"{address}:{SSH_PORT}",
                "host_keys": ["/etc/stargate/ssh_host_ed25519_key"],
                "authorized_keys": "/etc/stargate/authorized_keys",
            },
            "election": {"engine": "flock", "flock": {"path": LOCK}},
            "health": {"listen": f"0.0.0.0:{HTTP_PORT}"},
            "log": {"format": "json", "level": "info"},
        }
        if self.plan.floating:
            config["address"] = [
                {"kind": "vip", "address": self.floating_address, "interface": "eth0", "launcher": LAUNCHER}
            ]
        for section, values in self.plan.overrides.items():
            merges = isinstance(values, Mapping)
            config[section] = {**config.get(section, {}), **values} if merges else values
        return config

    def _node(self, name: str, address: str) -> Node:
        container = self._create(
            name, address, ["serve"], volumes=self._volumes(name), healthcheck=self._health_check(),
            security_opt=[] if self.plan.floating else list(self.plan.security_opt),
        )  # fmt: skip
        node = Node(name, container, self.network, address, "git")
        self._configure(node, self.node_config(name, address))
        return node

    def _configure(self, node: Machine, config: Mapping[str, Any]) -> None:
        keys = self._keys
        node.put(CONFIG, yaml.safe_dump(dict(config)))
        node.put("/etc/stargate/cluster_ed25519_key", keys["cluster"])
        node.put("/etc/stargate/ssh_host_ed25519_key", keys["host"])
        user = 'environment="STARGATE_USER=dev",environment="STARGATE_ACCESS=admin" ' + keys["dev.pub"]
        node.put("/etc/stargate/authorized_keys", user)

    def _once(self, node: Node, *words: str) -> None:
        """Run a stargate command on a node that has not been started yet."""
        name = f"{node.name}-{words[0]}"
        container = self._create(name, None, list(words), volumes=self._volumes(node.name))
        machine = Node(name, container, self.network, node.address, "git")
        self._configure(machine, self.node_config(node.name, node.address))
        container.start()
        status = container.wait()["StatusCode"]
        if status:
            raise AssertionError(f"stargate {' '.join(words)} exited {status}: {machine.logs()}")
        container.remove()

    def _client(self, address: str) -> Client:
        container = self._create("client", address, FOREVER, user="dev", environment={"HOME": HOME})
        client = Client("client", container, self.network, address, "dev")
        client.put(f"{HOME}/.ssh/id_ed25519", self._keys["dev"])
        client.put(f"{HOME}/.ssh/known_hosts", f"stargate {self._keys['host.pub']}")
        client.put(f"{HOME}/.ssh/config", SSH_CONFIG)
        client.put(f"{HOME}/.gitconfig", GIT_CONFIG)
        return client

    def _volumes(self, node: str) -> dict[str, dict[str, str]]:
        places = {"lock": str(Path(LOCK).parent), node: DATA_DIR}
        return {self._volume(volume): {"bind": place, "mode": "rw"} for volume, place in places.items()}

    def _small_volumes(self) -> dict[str, dict[str, str]]:
        return {
            self._volume(volume): {"bind": f"/mnt/{volume}", "mode": "rw"}
            for volume in sorted(self.plan.small)
        }

    def _volume(self, which: str) -> str:
        name = f"{self.name}-{which}"
        options = SMALL if which in self.plan.small else {}
        if which == "lock" and self.plan.lock_disk:
            options = disks.volume_options(self.machine(disks.NAME))
        self._engine.volumes.create(name, driver="local", driver_opts=options, labels=self._labels)
        return name

    def _health_check(self) -> dict[str, Any] | None:
        return None if self.plan.health_checks else {"test": ["NONE"]}

    def _create(self, name: str, address: str | None, command: list[str], **options: Any) -> Container:
        """A container of the image, not yet started; without an address it has no network."""
        full = f"{self.name}-{name}"
        if command is FOREVER or options.get("user") == "root":
            options.setdefault("entrypoint", ["tini", "--"])
            options.setdefault("healthcheck", {"test": ["NONE"]})
        endpoint = EndpointConfig(self._engine.api._version, ipv4_address=address) if address else None  # noqa: SLF001
        options.setdefault("cap_add", ["NET_ADMIN"])  # for what tests do as root; git and dev have none of it
        return self._engine.containers.create(
            self._image, command, name=full, hostname=name, labels=self._labels, detach=True,
            network=self.network.name if address else None,
            network_mode=None if address else "none",
            networking_config={self.network.name: endpoint} if endpoint else None,
            **options,
        )  # fmt: skip


SSH_CONFIG = """Host *
    User git
    HostKeyAlias stargate
    StrictHostKeyChecking yes
    BatchMode yes
    ConnectTimeout 2
    ServerAliveInterval 1
    ServerAliveCountMax 3
    LogLevel ERROR
"""
GIT_CONFIG = """[user]
    name = Dev
    email = dev@example.org
[init]
    defaultBranch = main
"""


def _make_keys() -> dict[str, str]:
    """The cluster's key, its host key and a user's key, fresh."""
    keys = {}
    with tempfile.TemporaryDirectory(prefix="stargate-keys-") as folder:
        for name in ("cluster", "host", "dev"):
            file = Path(folder) / name
            argv = [
                "ssh-keygen",
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-C",
                f"{name}@example.org",
                "-f",
                str(file),
            ]
            subprocess.run(argv, check=True, timeout=60)
            keys[name] = file.read_text()
            keys[f"{name}.pub"] = file.with_suffix(".pub").read_text()
    return keys
