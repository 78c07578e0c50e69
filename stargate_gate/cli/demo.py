"""`stargate demo`: runs two nodes on loopback, and prints commands to try, such as killing the leader."""

import asyncio
import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Mapping
from typing import Any

import click

from stargate_gate.aio.tasks import all_of, task_group
from stargate_gate.cli.demo_files import DemoFiles, demo_files, push_first_commit
from stargate_gate.cli.demo_nodes import DemoNode
from stargate_gate.cli.demo_text import NODE_ENVIRONMENT, Screen, ended, guide, tail, took_over
from stargate_gate.errors import UnavailableError

START_LIMIT_S = 30.0
TAKE_OVER_LIMIT_S = 10.0
BACK_LIMIT_S = 60.0
PAUSE_S = 5.0  # before a node that ended is started again: time to push to the other one
MAX_QUICK_ENDS = 3  # a node that ends so often within QUICK_S of its start is not started again
QUICK_S = 3.0
MAX_TYPED_BYTES = 4096  # the longest line of a terminal


@click.command("demo")
def demo() -> None:
    """A two-node cluster on loopback, to try it out.

    Makes keys and configuration in a temp dir, starts two nodes, and prints commands to paste into a
    second terminal. Enter prints them again. A node that is killed is started again as a standby.
    Ctrl-C ends the nodes and removes everything. A SIGHUP is passed on to the nodes, which read their
    keys again. Closing the terminal ends the demo.
    """
    screen = Screen()
    try:
        with demo_files() as files:
            asyncio.run(_play_until_signal(files, screen))
        screen.say(f"ended; {files.root} is removed")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def _play_until_signal(files: DemoFiles, screen: Screen) -> None:
    play = _Play(files, screen)
    loop = asyncio.get_running_loop()
    had_terminal = sys.stdout.isatty()
    async with task_group() as group:
        task = group.create_task(play.run(), name="demo")
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)

        def hung_up() -> None:
            """If the terminal was closed, end. Else it was `kill -HUP`: the nodes read their files again."""
            if had_terminal and not sys.stdout.isatty():
                task.cancel()
            else:
                play.reload()

        loop.add_signal_handler(signal.SIGHUP, hung_up)


class _Play:
    """Runs the two nodes and reports what happens to them."""

    def __init__(self, files: DemoFiles, screen: Screen) -> None:
        self._files = files
        self._screen = screen
        self._nodes = tuple(DemoNode(node, environment=NODE_ENVIRONMENT) for node in files.nodes)
        self._leader = self._nodes[0]
        self._asks_for_page = screen.terminal and sys.stdin is not None and sys.stdin.isatty()

    async def run(self) -> None:
        """Run until cancelled. Both nodes have ended when this returns.

        Raises:
            UnavailableError: the nodes do not start.
        """
        try:
            self._screen.say(f"starting two nodes; everything is in {self._files.root}")
            await self._start()
            self._screen.say(f"what the nodes log:  tail -f {shlex.quote(str(self._files.root))}/*.log")
            self._show_page()
            if self._asks_for_page:
                asyncio.get_running_loop().add_reader(sys.stdin, self._show_page_again)
            async with task_group() as group:
                for node in self._nodes:
                    group.create_task(self._keep(node), name=f"keep {node.name}")
        finally:
            if self._asks_for_page:
                asyncio.get_running_loop().remove_reader(sys.stdin)
            with contextlib.suppress(BrokenPipeError):
                self._screen.say("ending both nodes")
            await all_of(node.end() for node in self._nodes)

    def reload(self) -> None:
        """Pass a SIGHUP on to the nodes."""
        self._screen.say("SIGHUP: the nodes read keys and log settings again")
        for node in self._nodes:
            node.reload()

    def _show_page(self) -> None:
        leader = self._leader
        if leader.alive:
            self._screen.page(guide(self._files, leader.files, leader.pid, enter=self._asks_for_page))
        else:
            self._screen.say(f"{leader.name} has just ended: wait until a node leads")

    def _show_page_again(self) -> None:
        """Called for each line from the terminal. Stop at its end (Ctrl-D), or in the background."""
        terminal = sys.stdin.fileno()
        in_foreground = os.tcgetpgrp(terminal) == os.getpgrp()
        if in_foreground and os.read(terminal, MAX_TYPED_BYTES):
            self._show_page()
        else:
            asyncio.get_running_loop().remove_reader(sys.stdin)

    async def _start(self) -> None:
        """Start both nodes, the first as leader, the second in its sync set, and push a commit."""
        first, second = self._nodes
        await first.start()
        await self._require(first, lambda status: status["ready"], f"{first.name} leads")
        await second.start()
        await self._require(second, _follows, f"{second.name} follows")
        in_sync = f"{second.name} is in the sync set"
        await self._require(first, lambda status: second.name in status["sync_set"], in_sync)
        await asyncio.to_thread(push_first_commit, self._files, first.files)

    async def _require(self, node: DemoNode, accept: Any, what: str) -> None:
        if await node.wait_status(accept, START_LIMIT_S):
            self._screen.say(what)
            return
        for line in tail(node.files.log_file):
            self._screen.say(f"{node.name}: {line}")
        raise UnavailableError(f'it did not come to "{what}": see the lines above')

    async def _keep(self, node: DemoNode) -> None:
        """Wait for the node to end, report it and who leads then, and start it again; in a loop."""
        loop = asyncio.get_running_loop()
        quick_ends = 0
        while quick_ends < MAX_QUICK_ENDS:
            started_s = loop.time()
            status = await node.wait()
            quick_ends = quick_ends + 1 if loop.time() - started_s < QUICK_S else 0
            ended_s = loop.time()
            self._screen.say(ended(node.name, status))
            await self._tell_leader(node, ended_s)
            self._screen.say(f"{node.name} comes back in {PAUSE_S:.0f} s")
            await asyncio.sleep(PAUSE_S)
            await node.start()
            await self._tell_back(node)
        for line in tail(node.files.log_file):
            self._screen.say(f"{node.name}: {line}")
        raise UnavailableError(f"{node.name} ends as soon as it is started: see the lines above")

    def _other(self, node: DemoNode) -> DemoNode:
        first, second = self._nodes
        return second if node is first else first

    async def _tell_leader(self, dead: DemoNode, ended_s: float) -> None:
        other = self._other(dead)
        status = await other.wait_status(lambda status: bool(status["ready"]), TAKE_OVER_LIMIT_S)
        if not status:
            self._screen.say(f"nobody leads: {other.name} may not, it was not in the sync set")
        elif other is self._leader:
            self._screen.say(f"{other.name} goes on leading, in term {status['term']}")
        else:
            self._leader = other
            gap_s = asyncio.get_running_loop().time() - ended_s
            for line in took_over(other.files, status["term"], gap_s, other.pid):
                self._screen.say(line)

    async def _tell_back(self, node: DemoNode) -> None:
        other = self._other(node)
        status = await node.wait_status(lambda status: status["ready"] or _follows(status), BACK_LIMIT_S)
        if status.get("ready"):
            self._leader = node
            self._screen.say(f"{node.name} is back and leads, in term {status['term']} (pid {node.pid})")
        elif status and await other.wait_status(lambda status: node.name in status["sync_set"], BACK_LIMIT_S):
            self._screen.say(f"{node.name} is back as a standby, in the sync set; kill the leader again:")
            self._screen.say(f"   kill -9 {other.pid}")


def _follows(status: Mapping[str, Any]) -> bool:
    return bool((status["mirror"] or {}).get("connected"))
