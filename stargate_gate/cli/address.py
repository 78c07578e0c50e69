"""`stargate address`: releases the floating address when no node runs."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import click

from stargate_gate.address.items import addresses_of
from stargate_gate.address.port import Address, Turn
from stargate_gate.aio.tasks import all_of
from stargate_gate.cli.running_node import config_option
from stargate_gate.config.load import load_config
from stargate_gate.config.model import Config
from stargate_gate.datadir.layout import DataDir
from stargate_gate.datadir.locks import NodeLock
from stargate_gate.errors import AddressError, UnavailableError
from stargate_gate.exitcodes import ExitCode


@click.group("address")
def address() -> None:
    """Release the floating address after a crash."""


@address.command("release")
@config_option
@click.option("--force", is_flag=True, help="Do it although a node runs here, because it hangs.")
def release(config_file: Path | None, *, force: bool) -> int:
    """Remove the floating address from this machine.

    For a service manager, after a node has ended for any reason, and for people when a node cannot be
    started. A running node moves the address itself. An item of kind dns is not changed: the next
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
    """A scope in which no node runs or starts on this data_dir.

    Raises:
        UnavailableError: a node runs.
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
            pass  # the node may have ended because of a broken disk: release the address all the same
        yield


async def _release_all(addresses: tuple[Address, ...], node: str) -> list[str]:
    """Release all at the same time; returns what failed."""
    turn = Turn(node, "standby", 0, "", "command")
    results = await all_of(_release(one, turn) for one in addresses)
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
