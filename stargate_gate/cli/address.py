"""`stargate address`: the floating address, without a running node."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import click

from stargate_gate.address.items import addresses_of
from stargate_gate.address.port import Address, Turn
from stargate_gate.cli.running_node import config_option
from stargate_gate.config.load import load_config
from stargate_gate.config.model import Config
from stargate_gate.datadir.layout import DataDir
from stargate_gate.datadir.locks import NodeLock
from stargate_gate.errors import AddressError, UnavailableError
from stargate_gate.exitcodes import ExitCode


@click.group("address")
def address() -> None:
    """Give the floating address back after a crash."""


@address.command("release")
@config_option
@click.option("--force", is_flag=True, help="Although a node runs here: for one that hangs.")
def release(config_file: Path | None, *, force: bool) -> int:
    """Take the floating address from this machine.

    For a service manager, after a node has ended in whatever way, and for people when a node cannot be
    started. A running node moves the address itself. An item of kind dns is left as it is: the next
    leader replaces it.
    """
    config = load_config(config_file)
    with _no_node(config, force=force):
        problems = asyncio.run(_release_all(addresses_of(config), config.node.name))
    for problem in problems:
        click.echo(f"stargate: {problem}", err=True)
    return ExitCode.UNAVAILABLE if problems else ExitCode.OK


@contextlib.contextmanager
def _no_node(config: Config, *, force: bool) -> Iterator[None]:
    """While the body runs, no node runs on this data_dir, and none starts.

    Raises:
        UnavailableError: one does.
    """
    datadir = DataDir(config.node.data_dir, id="")
    with contextlib.ExitStack() as stack:
        try:
            if not force and datadir.node_lock.exists():
                stack.enter_context(NodeLock.acquire(datadir))
        except UnavailableError as error:
            remedy = "it moves the address itself; stop it first, or use --force if it hangs"
            raise UnavailableError(f"{error.message}: {remedy}") from error
        except OSError:
            pass  # a broken disk may be why the node has ended: the address must go all the same
        yield


async def _release_all(addresses: tuple[Address, ...], node: str) -> list[str]:
    """Release each, at the same time; what failed."""
    turn = Turn(node, "standby", 0, "", "command")
    results = await asyncio.gather(*(_release(one, turn) for one in addresses))
    return [problem for problem in results if problem is not None]


async def _release(one: Address, turn: Turn) -> str | None:
    try:
        async with asyncio.timeout(one.limit_s):
            await one.release(turn)
    except AddressError as error:
        return f"{one.name} is not released: {error.message}"
    except TimeoutError:
        return f"{one.name} is not released: no result within {one.limit_s:g} s"
    return None
