"""Whatever moves `stargate.local`: a real name server, HAProxy, keepalived; clients only know the name."""

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from integration.harness import NAME, Cluster, Machine, Node, Plan, Session, eventually
from integration.harness.node import CONFIG, SSH_PORT

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
KEY = 'key "stargate" { algorithm hmac-sha256; secret "x7VeNr1TYe6jHyvsgYSGVnijGEeyIOiesFBiVg+9o54="; };\n'
ZONE_FILE = """\
$TTL 60
@ SOA ns 1 1 3600 600 86400 60
@ NS ns
ns A {server}
"""
SAY_NOTHING = "exec 3<>/dev/tcp/{}/{}; echo SSH-2.0-x >&3; cat <&3"  # of the client behind it
BIND = """\
options {{
    directory "/var/cache/bind"; listen-on {{ any; }}; listen-on-v6 {{ none; }};
    recursion no; dnssec-validation no;
}};
zone "{name}" {{
    type primary; file "/var/cache/bind/zone";
    update-policy {{ grant stargate subdomain {name}. A AAAA TXT; }};
}};
"""


def reconfigure(cluster: Cluster, change: Callable[[Node], Mapping[str, Any]]) -> None:
    """Put `change` over each node's YAML, section by section, and start both again."""
    for node in cluster.nodes:
        config = cluster.node_config(node.name, node.address)
        for section, values in change(node).items():
            merges = isinstance(values, Mapping)
            config[section] = {**config.get(section, {}), **values} if merges else values
        node.put(CONFIG, yaml.safe_dump(config))
    for node in cluster.nodes:
        assert node.stop() == 0
    for node in cluster.nodes:
        node.start()
    cluster.settle()


def one_failover(cluster: Cluster, tree: str) -> Node:
    """A push through the name, the leader killed, the next push through the same name; the new leader."""
    leader, standby = cluster.settle()
    client = cluster.client
    client.work_tree(tree)
    client.push(tree)
    leader.kill()
    standby.wait_ready()
    since_s = time.monotonic()
    oid = client.commit(tree, "after the failover")
    eventually(lambda: client.push(tree, ok=False).status == 0, f"a push through {NAME}")
    print(
        f"{tree}: pushes go on {time.monotonic() - since_s:.1f} s after {standby.name} is ready", flush=True
    )
    leader.start()
    standby.wait_sync_set(leader.name)
    assert leader.refs(tree) == standby.refs(tree)
    assert standby.refs(tree)["refs/heads/main"] == oid
    return standby


def no_fixed_name(cluster: Cluster) -> None:
    """The client has to ask somebody what the name means."""
    cluster.client.sh("sed '/# stargate$/d' /etc/hosts >/tmp/h; cat /tmp/h >/etc/hosts", user="root")


def test_the_name_follows_the_leader_through_bind(cluster: Cluster) -> None:
    """The nodes update a real BIND with TSIG; the client resolves the name through it, as all programs do."""
    server = cluster.add_machine("names")
    server.put("/var/cache/bind/zone", ZONE_FILE.format(server=server.address), mode=0o644)
    server.put("/etc/bind/named.conf", KEY + BIND.format(name=NAME), mode=0o644)
    server.start_process("named", "-g", "-c", "/etc/bind/named.conf", user="root")
    eventually(lambda: "ns." in server.run("dig", "+short", "@127.0.0.1", NAME, "NS", ok=False).out, "BIND")

    def by_name(node: Node) -> Mapping[str, Any]:
        node.put("/etc/stargate/tsig.key", KEY)
        item = {
            "kind": "dns", "zone": NAME, "server": f"{server.address}:53",
            "key_file": "/etc/stargate/tsig.key", "addresses": [node.address], "ttl_s": 1,
        }  # fmt: skip
        return {"address": [item]}

    reconfigure(cluster, by_name)
    client = cluster.client
    client.put("/tmp/resolv.conf", f"nameserver {server.address}\n", mode=0o644)
    client.sh("cat /tmp/resolv.conf >/etc/resolv.conf", user="root")
    no_fixed_name(cluster)

    def means() -> str:
        return client.run("getent", "ahostsv4", NAME, ok=False).out.partition(" ")[0]

    assert means() == cluster.leader().address
    leader = one_failover(cluster, "through-bind")
    assert means() == leader.address
    fence = server.run("dig", "+short", "@127.0.0.1", f"_stargate.{NAME}", "TXT").out
    assert re.search(rf"term={leader.status()['term']} cluster=\w+ node={leader.name}\b", fence)
    assert [one["state"] for one in leader.status()["addresses"]] == ["claimed"]


def with_addresses(text: str, cluster: Cluster) -> str:
    """A sample of docs/examples with this network's addresses in place of its own."""
    own = {"10.0.0.11": cluster["node-a"].address, "10.0.0.12": cluster["node-b"].address}
    for example, real in {**own, "10.0.0.100": cluster.floating_address}.items():
        text = re.sub(rf"{re.escape(example)}\b", real, text)
    return text


def test_haproxy_follows_readyz_and_tells_who_the_client_is(cluster: Cluster) -> None:
    """The sample configuration as it is; a key that may be used from the client's address only."""
    balancer = cluster.add_machine("balancer")
    sample = (EXAMPLES / "haproxy.cfg").read_text()
    balancer.put("/etc/haproxy/haproxy.cfg", with_addresses(sample, cluster), mode=0o644)
    client = cluster.client

    def behind_it(node: Node) -> Mapping[str, Any]:
        line = node.run("cat", "/etc/stargate/authorized_keys").out
        node.put("/etc/stargate/authorized_keys", f'from="{client.address}",{line}')
        return {"ssh": {"proxy_protocol_from": [balancer.address]}}

    reconfigure(cluster, behind_it)
    balancer.start_process("haproxy", "-db", "-f", "/etc/haproxy/haproxy.cfg", user="root")
    client.point_name_at(balancer.address)
    eventually(lambda: client.ssh("ready", ok=False).status == 0, "HAProxy has found the leader")
    leader = one_failover(cluster, "through-haproxy")
    leader.wait_logged(f'"source": "{client.address}"')
    unsaid = balancer.run("bash", "-c", SAY_NOTHING.format(leader.address, SSH_PORT))
    assert unsaid.out == "this address must speak PROXY protocol\r\n"
    from_elsewhere = client.ssh("ready", where=leader)
    assert from_elsewhere.status == 0


def start_keepalived(cluster: Cluster, node: Node) -> None:
    """With the sample, as this node has it."""
    sample = with_addresses((EXAMPLES / "keepalived.conf").read_text(), cluster)
    other = next(one for one in cluster.nodes if one is not node)
    sample = re.sub(r"unicast_src_ip \S+", f"unicast_src_ip {node.address}", sample)
    sample = re.sub(r"unicast_peer \{\s+\S+", f"unicast_peer {{\n        {other.address}", sample)
    node.put("/etc/keepalived/keepalived.conf", sample, owner="root", mode=0o644)
    node.start_process(
        "sh", "-c", "keepalived --dont-fork --log-console >/tmp/keepalived.log 2>&1", user="root"
    )


def has_floating_address(node: Machine, address: str) -> bool:
    """Whether the machine has it now."""
    return f"{address}/" in node.run("ip", "-brief", "address").out


def test_keepalived_follows_readyz(session: Session) -> None:
    """The sample configuration on both machines, which moves an address that Stargate knows nothing of."""
    with session.cluster(Plan(security_opt=())) as cluster:  # keepalived is root's, and needs NET_ADMIN
        address = cluster.floating_address
        leader, standby = cluster.settle()
        cluster.client.point_name_at(address)
        for node in cluster.nodes:
            start_keepalived(cluster, node)
        eventually(lambda: has_floating_address(leader, address), "the leader has the address")
        assert not has_floating_address(standby, address)
        assert one_failover(cluster, "through-keepalived") is standby
        start_keepalived(cluster, leader)
        assert has_floating_address(standby, address)
        assert not has_floating_address(leader, address)
        assert standby.stop() == 0
        leader.wait_ready()
        eventually(lambda: has_floating_address(leader, address), "and back")
        assert cluster.client.ssh("ready").status == 0
