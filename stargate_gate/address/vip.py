"""An address that is put on an interface of the leader, by iproute2.

The kernel gets the address with a lifetime of `lifetime_s`, and `keep` renews it. If the node is killed or
hangs, the kernel removes the address by itself. The address is announced when it is added and at each
renewal, for switches and neighbours that missed an announcement or have heard another node's since.

Two capabilities are needed. Giving them to a copy of ip(8) does not work: ip drops capabilities that it did
not inherit (tried, iproute2 6.1). So either the node has them, or a launcher gives them to ip and to the
program that announces.
"""

import ipaddress
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from stargate_gate.address.announce import announce
from stargate_gate.address.port import Turn
from stargate_gate.address.running import environment, run
from stargate_gate.errors import AddressError

RENEWALS_PER_LIFETIME = 4  # three in a row may fail before the address is lost
PROGRAM_LIMIT_S = 2.0  # ip talks to the kernel only
LIMIT_S = 5.0
ANNOUNCE = (sys.executable, "-S", "-m", "stargate_gate.address.announce")
PACKAGES = str(Path(__file__).resolve().parents[2])  # where `-S` does not look

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


class Vip:
    """The `Address` of kind vip. `launcher` is empty if this process has the capabilities."""

    limit_s = LIMIT_S

    def __init__(
        self, address: Interface, interface: str, *, lifetime_s: int, launcher: Sequence[str] = ()
    ) -> None:
        self.name = f"vip {address.ip} on {interface}"
        self.keep_s = lifetime_s / RENEWALS_PER_LIFETIME
        self.hosts = frozenset({str(address.ip)})
        self._address = address
        self._interface = interface
        self._lifetime_s = lifetime_s
        self._launcher = tuple(launcher)

    async def claim(self, turn: Turn) -> None:
        """Add the address, or renew it if it is there, and announce it."""
        await self.keep(turn)

    async def keep(self, turn: Turn) -> None:  # noqa: ARG002 - the port's signature
        """Add the address, or give it a new lifetime, and announce it."""
        await self._add()
        if self._launcher:
            await self._run(*ANNOUNCE, self._interface, str(self._address.ip))
        else:
            announce(self._interface, self._address.ip)

    async def release(self, turn: Turn) -> None:  # noqa: ARG002 - the port's signature
        """Remove the address from the interface, whatever its prefix length is there."""
        for one in await self._found():
            await self._ip("address", "delete", one, "dev", self._interface)

    async def _add(self) -> None:
        """Add or renew it, deprecated: so this node's own connections do not use it as their source."""
        options = ["valid_lft", str(self._lifetime_s), "preferred_lft", "0"]
        if self._address.version == 6:  # noqa: PLR2004 - IPv6
            options.append("nodad")  # the machine of a dead leader may still answer; it must not prevent this
        await self._ip("address", "replace", str(self._address), "dev", self._interface, *options)

    async def _found(self) -> list[str]:
        """The address as it is on the interface now; it may be there with several prefix lengths."""
        try:
            text = await self._ip(
                "-json", "address", "show", "dev", self._interface, "to", str(self._address.ip)
            )
        except AddressError as error:
            if "does not exist" in error.message:
                return []
            raise
        try:
            # An address that `to` leaves out is still there as an empty object (iproute2 6.1).
            found = [info for link in json.loads(text or "[]") for info in link["addr_info"] if info]
            return [f"{info['local']}/{info['prefixlen']}" for info in found]
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise AddressError("ip printed no list of addresses") from error

    async def _ip(self, *words: str) -> str:
        try:
            return await self._run("ip", *words)
        except AddressError as error:
            if "not permitted" not in error.message:
                raise
            raise AddressError(f"{error.message}; give the node CAP_NET_ADMIN, or name a launcher") from error

    async def _run(self, *words: str) -> str:
        return await run((*self._launcher, *words), environment(PYTHONPATH=PACKAGES), PROGRAM_LIMIT_S)
