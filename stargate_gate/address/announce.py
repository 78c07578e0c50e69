"""Tells the network where an address is now, by a raw socket. Also a program, which a launcher can run.

It imports little, so that it starts fast: `python -S -m stargate_gate.address.announce INTERFACE ADDRESS`.
"""

import fcntl
import ipaddress
import socket
import struct
import sys

from stargate_gate.address.frames import announcements
from stargate_gate.errors import AddressError

SIOCGIFHWADDR = 0x8927  # netdevice(7)
ARPHRD_ETHER = 1

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def announce(interface: str, address: Address) -> None:
    """Send the announcements of `address`. On an interface that is not Ethernet, nothing is sent.

    Raises:
        AddressError: they could not be sent.
    """
    try:
        mac = _ethernet_address(interface)
        if mac is None:
            return
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
            raw.setblocking(False)
            raw.bind((interface, 0))
            for frame in announcements(mac, address):
                raw.send(frame)
    except PermissionError:
        raise AddressError(
            f"cannot be announced on {interface}: a raw socket needs CAP_NET_RAW; give it to the node, "
            "or name a launcher"
        ) from None
    except OSError as error:
        raise AddressError(f"cannot be announced on {interface}: {error.strerror}") from error


def _ethernet_address(interface: str) -> bytes | None:
    """The hardware address; None if it is not Ethernet. Raises OSError if there is no such interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH22x", interface.encode(), 0)
        answer = fcntl.ioctl(any_socket, SIOCGIFHWADDR, request)
    (family,) = struct.unpack_from("H", answer, 16)
    return answer[18:24] if family == ARPHRD_ETHER else None


def main() -> int:
    """Run as a program: exit status 0, or one line on stderr and another status."""
    interface, address = sys.argv[1:]
    try:
        announce(interface, ipaddress.ip_address(address))
    except AddressError as error:
        sys.stderr.write(f"{error.message}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
