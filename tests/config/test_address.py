"""The items of `address`: what is read, what is refused, and that the page of every key tells of them."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticUndefined

from stargate_gate.config.address import ITEM_KINDS, CommandItem, DnsItem, VipItem
from stargate_gate.config.load import load_checked_config, load_config
from stargate_gate.config.rules import dns_name
from stargate_gate.config.tsig import read_tsig_key
from stargate_gate.errors import ConfigurationError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
CLUSTER = """\
cluster: {name: prod, address: "Stargate.local:2222", key: /k/cluster}
ssh: {host_keys: [/k/host], advertise: "10.0.0.11:2222"}
election: {flock: {path: /mnt/lock}}
"""
SECRET = "x7VeNr1TYe6jHyvsgYSGVnijGEeyIOiesFBiVg+9o54="
KEY = f'key "stargate" {{\n\talgorithm hmac-sha256;\n\tsecret "{SECRET}";\n}};\n'
DNS = "kind: dns, zone: local, server: '10.0.0.53:53', key_file: /k/tsig, addresses: ['10.0.0.11']"


def test_all_kinds_are_read(write: Any) -> None:
    """Several at once, with their defaults, and programs and files found as everywhere in the file."""
    text = (
        CLUSTER
        + f"""\
address:
  - {{kind: vip, address: 10.0.0.100, interface: eth0}}
  - {{kind: vip, address: "fd00::100/64", interface: eth0, lifetime_s: 30, launcher: [sbin/setpriv, "-x"]}}
  - {{{DNS}}}
  - {{kind: command, command: [move-it, "--now"], timeout_s: 3}}
"""
    )
    path = write(text)
    config = load_config(path)
    first, second, dns, command = config.address
    assert isinstance(first, VipItem)
    assert (str(first.address), first.lifetime_s, first.launcher) == ("10.0.0.100/32", 5, ())
    assert isinstance(second, VipItem)
    assert str(second.address) == "fd00::100/64"
    assert second.launcher == (str(path.parent / "sbin/setpriv"), "-x")
    assert isinstance(dns, DnsItem)
    assert (dns_name(dns, config), str(dns.server), dns.ttl_s) == ("stargate.local", "10.0.0.53:53", 5)
    assert isinstance(command, CommandItem)
    assert (command.command, command.timeout_s) == (("move-it", "--now"), 3.0)


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        ("{}", "address[0].kind: is required: one of 'vip', 'dns' or 'command'"),
        ("null", "address[0]: must be a mapping of keys and values, but is empty"),
        ("{kind: vap}", "address[0].kind: must be one of 'vip', 'dns' or 'command', but is the text 'vap'"),
        ("{kind: [vip]}", "address[0].kind: must be one of 'vip', 'dns' or 'command', but is a list"),
        (
            "{kind: vip, address: 10.0.0.100}",
            "address[0].interface: is required: the network interface that gets it",
        ),
        (
            "{kind: vip, address: 10.0.0.100, interfce: eth0}",
            "address[0].interfce: unknown key; did you mean 'interface'?",
        ),
        (
            "{kind: vip, address: 10.0.0.100, interface: eth0, vip: 1}",
            "address[0].vip: unknown key; remove it, the keys here are kind, address, interface",
        ),
        ("{kind: vip, address: ten, interface: eth0}", "address[0].address: 'ten' is no address"),
        (
            "{kind: vip, address: 127.0.0.2, interface: lo}",
            "address[0].address: '127.0.0.2' cannot float between machines",
        ),
        (
            "{kind: vip, address: 10.0.0.11, interface: eth0}",
            "address[0].address: '10.0.0.11' is this node's own in ssh.advertise",
        ),
        (
            "{kind: vip, address: 10.0.0.100, interface: a/b}",
            "address[0].interface: 'a/b' is no network interface",
        ),
        (
            "{kind: vip, address: 10.0.0.100, interface: eth0, lifetime_s: 1}",
            "address[0].lifetime_s: must be at least 3, but is the number 1",
        ),
        (
            "{kind: vip, address: 'fd00::1', interface: eth0, launcher: 5}",
            "address[0].launcher: must be a list, but is the number 5",
        ),
        (
            f"{{{DNS}, ttl_s: 5.5}}",
            "address[0].ttl_s: must be a whole number, but is the number 5.5",
        ),
        (
            f"{{{DNS.replace('10.0.0.53:53', 'ns.local:53')}}}",
            "address[0].server: 'ns.local' is a name; write the server's address",
        ),
        (
            f"{{{DNS.replace(chr(39) + '10.0.0.11' + chr(39), '')}}}",
            "address[0].addresses: must be at least 1 long, but is a list; write at least one",
        ),
        (
            f"{{{DNS.replace('zone: local', 'zone: example.org')}}}",
            "address[0].zone: 'example.org' does not hold 'stargate.local'",
        ),
        (f"{{{DNS}, name: 'a b'}}", "address[0].name: 'a b' is no name for the DNS"),
        ("{kind: command, command: []}", "address[0].command: is empty; write the program"),
        (
            "{kind: command, command: [a, 5]}",
            "address[0].command: must be a list of texts, but is the number 5",
        ),
    ],
)
def test_each_mistake_names_its_key(problems: Any, item: str, problem: str) -> None:
    """With the index of the item, as the file has it, and with what to write instead."""
    found = problems(f"{CLUSTER}address:\n  - {item}\n")
    assert len(found) == 1, found
    assert found[0].startswith(f"node.yaml:5: {problem}"), found[0]


def test_two_items_do_not_move_the_same_thing(problems: Any) -> None:
    """They would undo each other."""
    vip = "{kind: vip, address: 10.0.0.100, interface: eth0}"
    found = problems(f"{CLUSTER}address:\n  - {vip}\n  - {vip}\n")
    assert found == ["node.yaml:6: address[1]: moves 10.0.0.100, as address[0] does; remove one of them"]


def test_a_name_is_needed_where_the_cluster_has_none(problems: Any) -> None:
    """A single node, or an address that is none."""
    found = problems(f"address:\n  - {{{DNS}}}\n")
    assert found[0].startswith("node.yaml:2: address[0].name: is required, since cluster.address has no name")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is no TSIG key"),
        (KEY + KEY, "is no TSIG key"),
        (KEY.replace("hmac-sha256", "hmac-md5"), "has the algorithm 'hmac-md5'"),
        (KEY.replace("x7Ve", "x7"), "has a secret that is not base64"),
        (KEY.replace(SECRET, "c2VjcmV0"), "can be guessed"),
    ],
)
def test_what_is_no_tsig_key_is_refused(text: str, problem: str) -> None:
    """With what to do, and never with the secret."""
    with pytest.raises(ValueError, match=re.escape(problem)) as caught:
        read_tsig_key(text)
    assert "x7" not in str(caught.value)


def test_a_long_text_is_no_tsig_key() -> None:
    """It is refused before the patterns see it: 10 KB of blanks took seconds, at each update of the name."""
    with pytest.raises(ValueError, match="too long"):
        read_tsig_key(KEY.replace("\t", " " * 10_000))


def test_a_tsig_key_is_read_as_bind_reads_it() -> None:
    """Comments, quotes and white space do not matter; the secret is not shown."""
    key = read_tsig_key("# mine\n" + KEY.replace('"stargate"', "stargate").replace("\t", " "))
    assert (key.name, key.algorithm, len(key.secret)) == ("stargate", "hmac-sha256", 32)
    assert "x7Ve" not in repr(key)
    assert str(key.secret) not in repr(key)


def test_what_items_point_at_is_checked(write: Any, tmp_path: Path) -> None:
    """Programs that are not there, keys open to others: known before the first failover."""
    key = tmp_path / "tsig"
    key.write_text(KEY)
    key.chmod(0o644)
    path = write(f"""\
address:
  - {{kind: vip, address: 10.0.0.100, interface: eth0, launcher: no-such-launcher}}
  - {{{DNS.replace("/k/tsig", str(key))}, name: a.local}}
  - {{kind: command, command: {tmp_path}/missing}}
""")
    with pytest.raises(ConfigurationError) as caught:
        load_checked_config(path)
    lines = [line.removeprefix(f"{path}:") for line in caught.value.problems]
    assert [line.partition(";")[0] for line in lines] == [
        "2: address[0].launcher: no-such-launcher is no program that this user can run",
        f"3: address[1].key_file: {key} is a private key open to everybody (mode 0644)",
        f"4: address[2].command: {tmp_path}/missing is no program that this user can run",
    ]


@pytest.mark.parametrize("kind", ITEM_KINDS)
def test_the_page_has_every_key_of_every_kind(kind: str) -> None:
    """No key more, no key less, with its unit and its default."""
    section = PAGE.read_text().split(f"#### kind: {kind}\n")[1].split("\n#")[0]
    rows = dict(re.findall(r"^\| `address\[\]\.([a-z_]+)` \|(.*)\|$", section, re.MULTILINE))
    fields = ITEM_KINDS[kind].model_fields
    assert list(rows) == list(fields)
    for key, cells in rows.items():
        _, unit, default, _ = (cell.strip() for cell in cells.split("|"))
        assert (unit == "seconds") == key.endswith("_s")
        wanted = fields[key].default
        if wanted is PydanticUndefined:
            assert default == "required", key
        elif wanted is None:
            assert default == "-", key
        else:
            shown = f"{wanted:g}" if isinstance(wanted, float | int) else "[]"
            assert default == f"`{shown}`", key
