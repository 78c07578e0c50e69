"""The items of `address` in the YAML file, one model for each kind."""

import ipaddress
import re
from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field, PlainValidator, ValidationInfo

from stargate_gate.config.endpoint import LABEL, Endpoint
from stargate_gate.config.values import (
    IpAddress,
    IpInterface,
    LocalPath,
    Period,
    Section,
    kind_of,
    read_endpoint,
    read_list,
    read_path,
    shortened,
)

MAX_INTERFACE_LENGTH = 15  # IFNAMSIZ of Linux without the final NUL
MAX_DNS_LENGTH = 253  # RFC 1035, section 2.3.4, without the final dot

_INTERFACE = re.compile(r"[^\s/:%]+")


def _as_text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be {what}, but is {kind_of(value)}")  # noqa: TRY004 - pydantic collects ValueErrors
    return value


def read_interface_address(value: object) -> IpInterface:
    """An address with its prefix length; without one, that of a single host."""
    if isinstance(value, ipaddress.IPv4Interface | ipaddress.IPv6Interface):
        return value
    text = _as_text(value, "an address, as in '10.0.0.100'")
    try:
        found = ipaddress.ip_interface(text)
    except ValueError:
        raise ValueError(
            f"{shortened(text)!r} is no address; write one as in '10.0.0.100' or '10.0.0.100/24'"
        ) from None
    if found.ip.is_unspecified or found.ip.is_multicast or found.ip.is_loopback:
        raise ValueError(f"'{found.ip}' cannot float between machines; write an address of the network")
    return found


def read_address(value: object) -> IpAddress:
    """A single address."""
    if isinstance(value, ipaddress.IPv4Address | ipaddress.IPv6Address):
        return value
    text = _as_text(value, "an address, as in '10.0.0.11'")
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{shortened(text)!r} is no address; write one as in '10.0.0.11'") from None


def read_server(value: object) -> Endpoint:
    """An `address:port`. A name is refused: looking it up would need the DNS that is to be changed."""
    endpoint = read_endpoint(value)
    try:
        ipaddress.ip_address(endpoint.host)
    except ValueError:
        raise ValueError(
            f"{shortened(endpoint.host)!r} is a name; write the server's address, as in '10.0.0.53:53'"
        ) from None
    return endpoint


def read_interface(value: object) -> str:
    """The name of a network interface."""
    text = _as_text(value, "a network interface, as in 'eth0'")
    if not _INTERFACE.fullmatch(text) or len(text) > MAX_INTERFACE_LENGTH:
        raise ValueError(f"{shortened(text)!r} is no network interface; see: ip link")
    return text


def read_dns_name(value: object) -> str:
    """A name in the DNS, without the final dot."""
    text = _as_text(value, "a name, as in 'stargate.example.org'").removesuffix(".")
    if len(text) > MAX_DNS_LENGTH or not all(LABEL.fullmatch(label) for label in text.split(".")):
        raise ValueError(
            f"{shortened(text)!r} is no name for the DNS; write one as in 'stargate.example.org'"
        )
    return text.lower()


def read_program(value: object, info: ValidationInfo) -> str:
    """A program: a name without a slash is searched in PATH, else it is a path."""
    text = _as_text(value, "a program")
    return str(read_path(text, info)) if "/" in text or not text else text


def read_words(value: object, info: ValidationInfo) -> tuple[str, ...]:
    """A command line as a list of words, or as one word. The first word is the program."""
    words = (value,) if isinstance(value, str) else read_list(value)
    if not isinstance(words, tuple) or not words:
        raise ValueError("is empty; write the program, and its arguments after it")
    program = read_program(words[0], info)
    rest = tuple(_as_text(word, "a list of texts") for word in words[1:])
    if any("\0" in word for word in rest):
        raise ValueError("has a NUL character, which no argument can have; remove it")
    return (program, *rest)


Addresses = Annotated[
    tuple[Annotated[IpAddress, PlainValidator(read_address)], ...], BeforeValidator(read_list)
]


class VipItem(Section):
    """An address that the leader has on one of its interfaces."""

    kind: Literal["vip"] = Field(description="vip, dns or command")
    address: Annotated[IpInterface, PlainValidator(read_interface_address)] = Field(
        description="the address that follows the leader, as in '10.0.0.100'"
    )
    interface: Annotated[str, PlainValidator(read_interface)] = Field(
        description="the network interface that gets it, as in 'eth0'"
    )
    lifetime_s: Annotated[int, Field(ge=3, le=3600)] = Field(
        default=5, description="the kernel drops an address that was not renewed for that long"
    )
    launcher: Annotated[tuple[str, ...], PlainValidator(read_words)] = Field(
        default=(), description="a command line that gives what follows it the capabilities"
    )


class DnsItem(Section):
    """A DNS name that points to the leader, by dynamic update."""

    kind: Literal["dns"] = Field(description="vip, dns or command")
    name: Annotated[str, PlainValidator(read_dns_name)] | None = Field(
        default=None, description="the name that follows the leader"
    )
    zone: Annotated[str, PlainValidator(read_dns_name)] = Field(description="the zone that the name is in")
    server: Annotated[Endpoint, PlainValidator(read_server)] = Field(
        description="the primary server of the zone, as in '10.0.0.53:53'"
    )
    key_file: LocalPath = Field(description="a TSIG key; make one with: tsig-keygen stargate > FILE")
    addresses: Annotated[Addresses, Field(min_length=1)] = Field(
        description="this node's own addresses, as in ['10.0.0.11']"
    )
    ttl_s: Annotated[int, Field(ge=1, le=86_400)] = Field(
        default=5, description="how long resolvers may keep the answer"
    )


class CommandItem(Section):
    """A program of the operator."""

    kind: Literal["command"] = Field(description="vip, dns or command")
    command: Annotated[tuple[str, ...], PlainValidator(read_words)] = Field(
        description="the program, and its arguments after it"
    )
    timeout_s: Period = Field(default=10.0, description="it is ended after that long, which is a failure")


AddressItem: TypeAlias = Annotated[VipItem | DnsItem | CommandItem, Field(discriminator="kind")]
ITEM_KINDS: dict[str, type[Section]] = {"vip": VipItem, "dns": DnsItem, "command": CommandItem}
