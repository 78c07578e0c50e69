"""An address on an interface, on a real link between machines: claimed, announced, dropped, released."""

import ipaddress
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from stargate_gate.address.frames import announcements
from stargate_gate.address.port import Turn
from stargate_gate.address.vip import ANNOUNCE, Vip
from stargate_gate.errors import AddressError
from tests.support.cluster import eventually
from tests.support.netns import Machine, machines

VIP4, VIP6 = "10.77.0.100", "fd77::100"
LEADER = Turn("node-a", "leader", 3, "c", "takeover")
STANDBY = Turn("node-a", "standby", 3, "c", "step-down")


@pytest.fixture(scope="module")
def link() -> Iterator[Sequence[Machine]]:
    """Two nodes and a client on one link."""
    with machines(3) as found:
        yield found


@pytest.fixture
def clean(link: Sequence[Machine]) -> Sequence[Machine]:
    """Nobody has the address."""
    for machine in link:
        for address in machine.addresses():
            if address.startswith((f"{VIP4}/", f"{VIP6}/")):
                machine.run("ip", "address", "delete", address, "dev", "eth0")
        machine.run("ip", "neighbour", "flush", "dev", "eth0")
    return link


def vip(machine: Machine, address: str, *, lifetime_s: int = 60, user: str | None = None) -> Vip:
    """As the machine's node has it; the launcher is what brings it there."""
    launcher = machine.prefix if user is None else (*machine.prefix, *user.split())
    return Vip(ipaddress.ip_interface(address), "eth0", lifetime_s=lifetime_s, launcher=launcher)


@pytest.mark.parametrize("address", [VIP4, f"{VIP4}/24", VIP6])
async def test_a_client_finds_the_new_leader_at_once(clean: Sequence[Machine], address: str) -> None:
    """Although it believes the address to be at the old one, which still has it."""
    old, new, client = clean
    ip = address.partition("/")[0]
    await vip(old, address).claim(LEADER)
    client.visit(ip)
    eventually(lambda: client.neighbour(ip) == old.mac, "the client knows the old leader")
    await vip(new, address).claim(LEADER)
    # A neighbour that has just heard of the old one does not believe the first announcement
    # (arp's locktime): the next renewals bring more.
    deadline = time.monotonic() + 20
    while client.neighbour(ip) != new.mac and time.monotonic() < deadline:
        await vip(new, address).keep(LEADER)
    assert client.neighbour(ip) == new.mac


@pytest.mark.parametrize("address", [VIP4, VIP6])
async def test_each_claim_and_each_renewal_is_announced(clean: Sequence[Machine], address: str) -> None:
    """The very frames of frames.py, on the wire, from this node's own hardware address."""
    node, _, client = clean
    wanted = announcements(bytes.fromhex(node.mac.replace(":", "")), ipaddress.ip_address(address))
    one = vip(node, address)
    with client.packets() as sock:
        sock.settimeout(20)
        for step in (one.claim, one.keep):
            await step(LEADER)
            missing = set(wanted)
            while missing:
                missing.discard(sock.recv(2048))


@pytest.mark.parametrize("address", [VIP4, f"{VIP4}/24", VIP6])
async def test_released_it_is_gone(clean: Sequence[Machine], address: str) -> None:
    """Also twice, also with a length that somebody else gave it, and also if it never was there."""
    node = clean[0]
    one = vip(node, address)
    own = node.addresses()
    await one.release(STANDBY)
    assert node.addresses() == own
    ip = address.partition("/")[0]
    node.run("ip", "address", "add", f"{ip}/{120 if ':' in ip else 28}", "dev", "eth0")
    await one.claim(LEADER)
    assert len(node.addresses()) > len(own)
    await one.release(STANDBY)
    await one.release(STANDBY)
    assert node.addresses() == own


@pytest.mark.parametrize("address", [VIP4, VIP6])
async def test_the_kernel_drops_what_nobody_renews(clean: Sequence[Machine], address: str) -> None:
    """A node that was killed, or hangs, loses the address without help; one that renews does not."""
    node = clean[0]
    one = vip(node, address, lifetime_s=3)
    started = time.monotonic()
    while time.monotonic() - started < 5:
        await one.keep(LEADER)
        assert any(found.startswith(f"{address}/") for found in node.addresses())
    eventually(lambda: not any(found.startswith(f"{address}/") for found in node.addresses()), "dropped")


async def test_it_is_no_source_of_this_nodes_own_connections(clean: Sequence[Machine]) -> None:
    """Else they would break when it goes, and peers would see another address after each change."""
    node, _, client = clean
    for address in (f"{VIP4}/24", VIP6):
        await vip(node, address).claim(LEADER)
    close_to_it = "fd77::101"  # by RFC 6724 the address with the longest common prefix is taken
    for target, own in ((client.address, node.address), (close_to_it, "fd77::1")):
        assert f"src {own} " in node.run("ip", "route", "get", target).stdout


async def test_without_the_capability_the_reason_and_the_remedy_are_told(clean: Sequence[Machine]) -> None:
    """As a plain user."""
    plain = "setpriv --reuid nobody --regid nogroup --clear-groups"
    with pytest.raises(AddressError, match=r"not permitted; give the node CAP_NET_ADMIN, or name a launcher"):
        await vip(clean[0], VIP4, user=plain).claim(LEADER)
    only_admin = f"{plain} --inh-caps +net_admin --ambient-caps +net_admin"
    with pytest.raises(AddressError, match="a raw socket needs CAP_NET_RAW"):
        await vip(clean[0], VIP4, user=only_admin).claim(LEADER)


async def test_two_capabilities_are_all_that_is_needed(clean: Sequence[Machine]) -> None:
    """As a plain user with an ambient CAP_NET_ADMIN and CAP_NET_RAW, as under systemd."""
    node = clean[0]
    caps = "+net_admin,+net_raw"
    user = (
        "setpriv --reuid nobody --regid nogroup --clear-groups --bounding-set -all,+net_admin,+net_raw "
        f"--inh-caps {caps} --ambient-caps {caps}"
    )
    one = vip(node, VIP4, user=user)
    await one.claim(LEADER)
    assert f"{VIP4}/32" in node.addresses()
    await one.release(STANDBY)
    assert f"{VIP4}/32" not in node.addresses()


async def test_an_interface_that_is_not_there_fails_the_claim_only() -> None:
    """There is nothing to release on it."""
    one = Vip(ipaddress.ip_interface(VIP4), "no-such-if", lifetime_s=5)
    await one.release(STANDBY)
    with pytest.raises(AddressError, match="no-such-if"):
        await one.claim(LEADER)


def test_the_program_that_announces_starts_without_site_packages() -> None:
    """It runs every second or so where a launcher is used: it must not import half the world."""
    program = "import sys, stargate_gate.address.announce; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={"PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert ANNOUNCE[:2] == (sys.executable, "-S")
    assert not {"asyncio", "pydantic", "asyncssh", "subprocess"} & set(done.stdout.split())
