"""Connections to an address that this node is about to lose: their clients must not hang.

Theory. A client whose connection is at a floating address can be told something only while this node may
send from that address. Once the kernel has dropped it, what the node still writes, and also the end of the
connection, stay here; and a client that waits for an answer sends nothing that the address's next owner
could reject. It would wait until its own keepalive finds out: two hours, with ssh's defaults. So:

- Before the address is released, sessions end, what they say last is flushed, and the connections are
  closed, all within a limit. After the limit they are cut. (`SshServer.leave`)
- A process that was frozen cannot do that: the kernel has taken the address by then. So such a socket may
  go on sending from an address that is gone (IP_TRANSPARENT, ip(7)): then the kernel's own FIN or RST, when
  the process ends by its watchdog or by `kill -9`, reaches the client, and so do last words that come late.
  IPv4 only: IPv6 sends in any case (tried, Linux 6.18). It needs CAP_NET_ADMIN or CAP_NET_RAW; a node
  without (an `address` item with a `launcher`) leaves such a client to its keepalive: ServerAliveInterval.
"""

import contextlib
import ipaddress
import socket
from collections.abc import Collection

import structlog

log = structlog.get_logger()

IP_TRANSPARENT = 19  # linux/in.h; Python's socket module has no name for it

Hosts = Collection[str] | None


def is_at(local_host: str, floating: Hosts) -> bool:
    """Whether a connection whose local end is at `local_host` breaks when the node loses its addresses.

    floating  the IP addresses that follow the leader; None: which they are is not known, so any may be one
    """
    if floating is None:
        return True
    try:
        address = ipaddress.ip_address(local_host.partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address) in floating


def may_outlive_its_address(sock: socket.socket) -> bool:
    """Let a connected socket send although its own address is gone; whether that is so now."""
    if sock.family != socket.AF_INET:
        return True
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
        return True
    return False
