"""From the file to addresses: each has a name that no other has, and what the file says."""

from pathlib import Path

from stargate_gate.address.items import addresses_of
from stargate_gate.config.load import load_config

FILE = """\
cluster: {name: prod, address: "stargate.local:2222", key: /k/cluster}
ssh: {host_keys: [/k/host]}
election: {flock: {path: /mnt/lock}}
address:
  - {kind: vip, address: 10.0.0.100, interface: eth0, lifetime_s: 8}
  - {kind: dns, zone: local, server: "10.0.0.53:53", key_file: /k/tsig, addresses: ["10.0.0.11"]}
  - {kind: command, command: /move, timeout_s: 3}
  - {kind: command, command: [/other, a]}
  - {kind: command, command: [/other, b]}
"""


def test_every_item_becomes_an_address_with_a_name_of_its_own(tmp_path: Path) -> None:
    """Metrics with equal labels would make every scrape fail."""
    path = tmp_path / "node.yaml"
    path.write_text(FILE)
    found = addresses_of(load_config(path))
    assert [(one.name, one.keep_s, one.limit_s) for one in found] == [
        ("vip 10.0.0.100 on eth0", 2.0, 5.0),
        ("dns stargate.local", 30.0, 10.0),
        ("command /move", 86400.0, 8.0),
        ("command /other (address[3])", 86400.0, 15.0),
        ("command /other (address[4])", 86400.0, 15.0),
    ]
