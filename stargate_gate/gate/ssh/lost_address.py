"""Connections to a floating address that this node is about to lose: their clients must not hang.

Theory. This node can send something to a client of a floating address only as long as it has that address.
After that, whatever the node writes, and also the end of the connection, no longer reaches the client. The
client waits for an answer and sends nothing itself, so the next owner of the address has nothing to reject.
With ssh's defaults the client would find out after two hours, by TCP's keepalive. So:

- Before the address is released, sessions end, their last output is flushed, and the connections are closed,
  all within a limit. After the limit they are cut. (`SshServer.leave`)
- From the moment when this node takes no writes any more until the address has moved, new connections get no
  answer, so that their clients try again. (`delay_connections`)
- A process that was frozen can do neither: the address is gone when it runs again. So its sockets may send
  from an address that the machine does not have (IP_TRANSPARENT, ip(7)). Then the client gets the kernel's
  FIN or RST when the process is ended by its watchdog or by `kill -9`, and also output that comes late. This
  is for IPv4; IPv6 sends in any case (tried with Linux 6.18). It needs CAP_NET_ADMIN or CAP_NET_RAW. A node
  without them (an `address` item with a `launcher`) cannot help such a client: only the client's own
  ServerAliveInterval does.
"""

import contextlib
import ctypes
import ipaddress
import socket
import struct
from asyncio.trsock import TransportSocket
from collections.abc import Collection
from typing import TypeAlias

from stargate_gate.net.addresses import normal_address

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
    """Whether a connection whose local address is `local_host` breaks when the node loses its addresses.

    floating  the IP addresses that follow the leader; None: they are not known, so each address may be one
    """
    if floating is None:
        return True
    try:
        return str(normal_address(local_host)) in floating
    except ValueError:
        return False


def may_outlive_its_address(sock: socket.socket) -> bool:
    """Let a connected socket send even when its local address is gone; whether the kernel allowed it."""
    if sock.family != socket.AF_INET:
        return True
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
        return True
    return False


def delay_connections(listener: Socket, hosts: Collection[str]) -> bool:
    """Let the kernel drop the first packet of each new connection to `hosts`; whether the kernel does it.

    The client sees a lost packet: it sends again after one second, then after two, four, and so on (RFC
    6298), and reaches the node that has the address by then. So during a planned stop new connections come
    to the next leader; this node could only refuse them. Existing connections, and those to other addresses
    of this node, are not affected. Needs no privilege (socket(7), SO_ATTACH_FILTER). `accept_connections`
    undoes it.
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
    """Undo `delay_connections`. Harmless if nothing was delayed."""
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def _syn_filter(family: int, hosts: Collection[str]) -> bytes | None:
    """A classic BPF program (linux/filter.h) that drops SYN packets to `hosts`.

    None if no host has the IP version of `family`. Offset 0 is the TCP header. Each host is compared word by
    word; at the first word that differs the program jumps to the next host.
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
