"""From the YAML file's items to addresses."""

from stargate_gate.address.command import Command
from stargate_gate.address.dns import DnsName
from stargate_gate.address.port import Address
from stargate_gate.address.vip import Vip
from stargate_gate.config.address import AddressItem, DnsItem, VipItem
from stargate_gate.config.model import Config
from stargate_gate.config.rules import dns_name


def addresses_of(config: Config) -> tuple[Address, ...]:
    """One for each item of `address`, in order."""
    return tuple(_address(item, config) for item in config.address)


def _address(item: AddressItem, config: Config) -> Address:
    if isinstance(item, VipItem):
        return Vip(item.address, item.interface, lifetime_s=item.lifetime_s, launcher=item.launcher)
    if isinstance(item, DnsItem):
        return DnsName(
            dns_name(item, config) or "",
            zone=item.zone,
            server=item.server,
            key_file=item.key_file,
            addresses=item.addresses,
            ttl_s=item.ttl_s,
        )
    users_address = str(config.cluster.address) if config.cluster is not None else ""
    return Command(item.command, address=users_address, timeout_s=item.timeout_s)
