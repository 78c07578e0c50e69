"""Makes the addresses that the YAML file's `address` lists."""

from collections import Counter

from stargate_gate.address.command import Command
from stargate_gate.address.dns import DnsName
from stargate_gate.address.port import Address
from stargate_gate.address.vip import Vip
from stargate_gate.config.address import CommandItem, DnsItem, VipItem
from stargate_gate.config.model import Config
from stargate_gate.config.rules import dns_name


def addresses_of(config: Config) -> tuple[Address, ...]:
    """One for each item of `address`, in order."""
    programs = Counter(item.command[0] for item in config.address if isinstance(item, CommandItem))
    return tuple(
        _command(item, index, config, alone=programs[item.command[0]] == 1)
        if isinstance(item, CommandItem)
        else _vip_or_dns(item, config)
        for index, item in enumerate(config.address)
    )


def _vip_or_dns(item: VipItem | DnsItem, config: Config) -> Address:
    if isinstance(item, VipItem):
        return Vip(item.address, item.interface, lifetime_s=item.lifetime_s, launcher=item.launcher)
    return DnsName(
        dns_name(item, config) or "",
        zone=item.zone,
        server=item.server,
        key_file=item.key_file,
        addresses=item.addresses,
        ttl_s=item.ttl_s,
    )


def _command(item: CommandItem, index: int, config: Config, *, alone: bool) -> Command:
    """Its name must be unique, for metrics. Arguments are not part of it, because they may be secret."""
    name = f"command {item.command[0]}"
    return Command(
        item.command,
        name=name if alone else f"{name} (address[{index}])",
        address=str(config.cluster.address) if config.cluster is not None else "",
        timeout_s=item.timeout_s,
    )
