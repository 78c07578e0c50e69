"""Connections to an address that this node is about to lose: their clients must not hang.

Theory. A client whose connection is at a floating address can be told something only while this node may
send from that address. Once the kernel has dropped it, what the node still writes, and also the end of the
connection, stay here; and a client that waits for an answer sends nothing that the address's next owner
could reject. It would wait until its own keepalive finds out: two hours, with ssh's defaults. So:

- Before the address is released, sessions end, what they say last is flushed, and the connections are
  closed, all within a limit. After the limit they are cut. (`SshServer.leave`)
- From the closing of the gate on, new connections are put off until the address has moved.
  (`delay_connections`)
- A process that was frozen cannot do that: the kernel has taken the address by then. So such a socket may
  go on sending from an address that is gone (IP_TRANSPARENT, ip(7)): then the kernel's own FIN or RST, when
  the process ends by its watchdog or by `kill -9`, reaches the client, and so do last words that come late.
  IPv4 only: IPv6 sends in any case (tried, Linux 6.18). It needs CAP_NET_ADMIN or CAP_NET_RAW; a node
  without (an `address` item with a `launcher`) leaves such a client to its keepalive: ServerAliveInterval.
"""

import contextlib
import ctypes
import ipaddress
import socket
import struct
from asyncio.trsock import TransportSocket
from collections.abc import Collection
from typing import TypeAlias

IP_TRANSPARENT = 19  # linux/in.h; Python's socket module has no name for it

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27  # asm-generic/socket.h
TCP_FLAGS, TCP_SYN = 13, 0x02  # RFC 9293, section 3.1
# linux/bpf_common.h, linux/filter.h
_LOAD_BYTE, _LOAD_WORD, _JUMP_IF_EQUAL, _JUMP_IF_SET, _RETURN = 0x30, 0x20, 0x15, 0x45, 0x06
_NETWORK_HEADER = 0xFFF00000  # SKF_NET_OFF, unsigned: offsets from here are into the IP header
_WHOLE = 0xFFFFFFFF  # keep all bytes of the packet; 0 drops it
_INSTRUCTION_BYTES = 8

Socket: TypeAlias = socket.socket | TransportSocket
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


def delay_connections(listener: Socket, hosts: Collection[str]) -> bool:
    """Let the kernel drop each first packet of a new connection to one of `hosts`; whether it does so now.

    To the client that looks like a lost packet: it sends again after one second, then after two, four, and
    so on (RFC 6298), and reaches whoever has the address by then, without having noticed anything. So at
    a planned stop, from the closing of the gate until the address has moved, new connections come to the
    next leader in place of this one, where all they could get is a refusal. Connections that are there,
    and those to other addresses of this node, are not touched. Needs no privilege (socket(7),
    SO_ATTACH_FILTER); undone by `accept_connections`.
    """
    program = _syn_filter(listener.family, hosts)
    if program is None:
        return False
    code = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(program) // _INSTRUCTION_BYTES, ctypes.addressof(code))
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, head)
        return True
    return False


def accept_connections(listener: Socket) -> None:
    """Take new connections again; also where none were delayed."""
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def _syn_filter(family: int, hosts: Collection[str]) -> bytes | None:
    """A program for the kernel's classic BPF (linux/filter.h): drop SYN to `hosts`; None if none fits.

    Offset 0 is the TCP header. Each host is compared word by word: on the first that differs, the next host.
    """
    version, destination = (4, 16) if family == socket.AF_INET else (6, 24)
    wanted = [one.packed for one in map(ipaddress.ip_address, hosts) if one.version == version]
    if not wanted:
        return None
    program = [(_LOAD_BYTE, 0, 0, TCP_FLAGS), (_JUMP_IF_SET, 1, 0, TCP_SYN), (_RETURN, 0, 0, _WHOLE)]
    for packed in wanted:
        words = [int.from_bytes(packed[at : at + 4], "big") for at in range(0, len(packed), 4)]
        for number, word in enumerate(words):
            left = len(words) - number - 1
            program.append((_LOAD_WORD, 0, 0, _NETWORK_HEADER + destination + 4 * number))
            program.append((_JUMP_IF_EQUAL, 0, 2 * left + 1, word))
        program.append((_RETURN, 0, 0, 0))
    program.append((_RETURN, 0, 0, _WHOLE))
    return b"".join(struct.pack("@HBBI", *instruction) for instruction in program)
