"""A name that follows the leader, on real Knot and BIND servers."""

import contextlib
import ipaddress
from collections.abc import Iterator
from pathlib import Path

import dns.rcode
import dns.update
import pytest

from stargate_gate.address.dns import DnsName
from stargate_gate.address.fence import Fence, fence_of, why_not
from stargate_gate.address.port import Turn
from stargate_gate.config.endpoint import Endpoint
from stargate_gate.errors import AddressError
from tests.support.dns_servers import NAME, SECRET, ZONE, DnsServer, dns_server, write_key
from tests.support.ports import free_port

FENCE = f"_stargate.{NAME}"


def leads(node: str, term: int, cluster: str = "c1") -> Turn:
    """A turn of that node."""
    return Turn(node, "leader", term, cluster, "takeover")


@pytest.fixture(scope="module", params=["knot", "bind"])
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DnsServer]:
    """One server of each kind."""
    with dns_server(tmp_path_factory.mktemp(request.param), request.param) as found:
        yield found


@pytest.fixture
async def server(servers: DnsServer) -> DnsServer:
    """Without the name."""
    update = dns.update.UpdateMessage(ZONE)
    for name, kind in ((FENCE, "TXT"), (NAME, "A"), (NAME, "AAAA")):
        update.delete(f"{name}.", kind)
    assert (await name_of(servers)._exchange(update)).rcode() == dns.rcode.NOERROR
    return servers


def name_of(server: DnsServer, *addresses: str, key_file: Path | None = None, name: str = NAME) -> DnsName:
    """As a node with `addresses` has it."""
    return DnsName(
        name,
        zone=ZONE,
        server=Endpoint(server.address, server.port),
        key_file=key_file or server.key_file,
        addresses=[ipaddress.ip_address(one) for one in addresses],
        ttl_s=5,
    )


async def test_the_name_follows_the_leader(server: DnsServer) -> None:
    """Both kinds of address, with a low time to live; nothing is left of the one before."""
    await name_of(server, "10.0.0.11", "fd00::11").claim(leads("node-a", 1))
    assert server.ask(NAME, "A") == ["10.0.0.11"]
    assert server.ask(NAME, "AAAA") == ["fd00::11"]
    assert server.ttl(NAME, "A") == 5
    await name_of(server, "10.0.0.12", "10.0.1.12").claim(leads("node-b", 2))
    assert server.ask(NAME, "A") == ["10.0.0.12", "10.0.1.12"]
    assert server.ask(NAME, "AAAA") == []
    assert server.ask(FENCE, "TXT") == ['"stargate term=2 cluster=c1 node=node-b"']
    assert server.ask(f"other.{ZONE}", "A") == ["192.0.2.1"]


async def test_released_it_stays_until_the_next_leader_claims_it(server: DnsServer) -> None:
    """A resolver would remember for long that there is no such name."""
    one = name_of(server, "10.0.0.11")
    await one.claim(leads("node-a", 1))
    await one.release(Turn("node-a", "standby", 1, "c1", "step-down"))
    assert server.ask(NAME, "A") == ["10.0.0.11"]


async def test_an_old_leader_does_not_take_it_back(server: DnsServer) -> None:
    """However late it comes: the record tells that a later term has it."""
    old = name_of(server, "10.0.0.11")
    await old.claim(leads("node-a", 1))
    await name_of(server, "10.0.0.12").claim(leads("node-b", 2))
    for step in (old.claim, old.keep):
        with pytest.raises(AddressError, match=r"was claimed by node-b in term 2, after this term 1"):
            await step(leads("node-a", 1))
    assert server.ask(NAME, "A") == ["10.0.0.12"]


async def test_an_update_that_was_under_way_when_another_claimed_is_refused(server: DnsServer) -> None:
    """A leader that was frozen after it had looked, and before it wrote: the server itself says no."""
    old = name_of(server, "10.0.0.11")
    for before in (False, True):  # without a record so far, and with one
        if before:
            await old.claim(leads("node-a", 3))
        late = old._update(fence_of(leads("node-a", 3)), await old._fences())
        await name_of(server, "10.0.0.12").claim(leads("node-b", 2 if not before else 4))
        assert (await old._exchange(late)).rcode() in {dns.rcode.NXRRSET, dns.rcode.YXRRSET}
        assert server.ask(NAME, "A") == ["10.0.0.12"]


async def test_what_somebody_else_changed_is_put_right(server: DnsServer) -> None:
    """By the next look at it; and a name that is as it should be is not written again."""
    one, turn = name_of(server, "10.0.0.11"), leads("node-a", 1)
    await one.claim(turn)
    serial = server.ask(ZONE, "SOA")
    await one.keep(turn)
    assert server.ask(ZONE, "SOA") == serial
    await name_of(server, "10.0.0.66").claim(turn)
    await one.keep(turn)
    assert server.ask(NAME, "A") == ["10.0.0.11"]


async def test_a_name_of_another_cluster_is_not_taken(server: DnsServer) -> None:
    """Two clusters with one name would take it from each other for ever."""
    await name_of(server, "10.0.0.11").claim(leads("node-a", 9))
    with pytest.raises(AddressError, match=r"belongs to the cluster c1 \(node node-a\); remove the record"):
        await name_of(server, "10.0.9.11").claim(leads("node-x", 1, "c2"))
    assert server.ask(NAME, "A") == ["10.0.0.11"]


async def test_a_wrong_key_is_told(server: DnsServer, tmp_path: Path) -> None:
    """One that the server does not know, one with another secret, none at all."""
    for secret, name in ((SECRET, "other"), ("A" * 43 + "=", "stargate")):
        key = write_key(tmp_path / "key", secret, name)
        with pytest.raises(AddressError, match=r"refuses \((PeerBadKey|PeerBadSignature)\): it must know"):
            await name_of(server, "10.0.0.11", key_file=key).claim(leads("node-a", 1))
    with pytest.raises(AddressError, match=r"the TSIG key .*: No such file"):
        await name_of(server, "10.0.0.11", key_file=tmp_path / "none").claim(leads("node-a", 1))


async def test_a_key_that_may_not_change_the_name_is_told(server: DnsServer) -> None:
    """With what it must be allowed."""
    with pytest.raises(
        AddressError, match=r"let it change A, AAAA and TXT of other.example.test. and _stargate"
    ):
        await name_of(server, "10.0.0.11", name=f"other.{ZONE}").claim(leads("node-a", 1))
    assert server.ask(f"other.{ZONE}", "A") == ["192.0.2.1"]


async def test_a_server_that_is_not_there_is_told(tmp_path: Path) -> None:
    """In one line, with its address."""
    nobody = DnsServer("127.0.0.1", free_port(), write_key(tmp_path / "key", SECRET))
    with pytest.raises(AddressError, match=f"no answer from the DNS server 127.0.0.1:{nobody.port}: Conn"):
        await name_of(nobody, "10.0.0.11").claim(leads("node-a", 1))


async def test_a_server_that_stops_is_no_answer_and_comes_back(tmp_path: Path) -> None:
    """What was claimed before it went is claimed again."""
    with dns_server(tmp_path / "one", "knot") as first, contextlib.ExitStack():
        await name_of(first, "10.0.0.11").claim(leads("node-a", 1))
    with pytest.raises(AddressError, match="no answer from the DNS server"):
        await name_of(first, "10.0.0.11").keep(leads("node-a", 1))


def test_a_record_that_is_not_ours_is_left_alone() -> None:
    """Nothing is guessed."""
    mine = Fence(3, "c1", "node-a")
    assert why_not(mine, []) is None
    assert why_not(mine, [str(mine)]) is None
    assert why_not(mine, [str(Fence(2, "c1", "node-b"))]) is None
    assert why_not(mine, [str(Fence(2, "c1", "node-b")), str(Fence(4, "c1", "node-b"))]) is not None
    assert why_not(mine, ["v=spf1 -all"]) == (
        "holds 'v=spf1 -all', which is not Stargate's; remove it, if the name is for this cluster"
    )
