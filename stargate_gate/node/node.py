"""One node from its start to its end.

Start:  data_dir and node lock → writers lock (end and sweep what an earlier node left) → parts built
        (build.py) → address released → SSH, HTTP and control listeners → repositories looked at → election
Stop:   readyz 503 → no new pushes → drain → the standby caught up → record clean, successor named →
        address released → leader lock closed → listeners closed → every git process reaped →
        local locks closed
"""

import asyncio
import os
import signal
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from stargate_gate import __version__
from stargate_gate.aio.sighup import Hangups
from stargate_gate.aio.tasks import task_group
from stargate_gate.config.model import Config
from stargate_gate.datadir.layout import DataDir, keep_name, open_data_dir
from stargate_gate.datadir.locks import NodeLock
from stargate_gate.datadir.writers import WritersLock
from stargate_gate.node.build import Parts, build_node
from stargate_gate.node.host_keys import watch_host_keys
from stargate_gate.node.reload import Reloader
from stargate_gate.node.settings import checks_after_unclean_end, next_steps
from stargate_gate.node.watchdog import feed_watchdog, notify_systemd
from stargate_gate.repos.hooks import install_hooks
from stargate_gate.repos.process import GitProcesses
from stargate_gate.repos.sweep import sweep_data_dir
from stargate_gate.scrub.progress import RunningMark, note_unclean_end

log = structlog.get_logger()


async def run_node(config: Config, config_file: Path | None, hangups: Hangups) -> None:
    """Run one node until SIGTERM or SIGINT, then step down and return.

    At each of `hangups` it reads `config_file` again; see node/reload.py.

    Raises:
        ConfigurationError: a file that the configuration names cannot be used, or differs from what
            the cluster's record says.
        UnavailableError: another node runs on this data_dir, or a port is in use.
    """
    datadir = open_data_dir(config.node.data_dir)
    async with AsyncExitStack() as stack:
        stack.enter_context(NodeLock.acquire(datadir))
        keep_name(datadir, config.node.name, is_host_name="name" not in config.node.model_fields_set)
        install_hooks(datadir)
        writers = await WritersLock.open_exclusively_then_share(
            datadir, lambda paths: asyncio.to_thread(_clean_up, config, datadir, paths)
        )
        stack.callback(writers.close)
        processes = GitProcesses(datadir, writers)
        stack.push_async_callback(processes.end_all)
        await Node(build_node(config, datadir, processes)).run(config_file, hangups)
        await processes.end_all()
        RunningMark(datadir).clear()  # nothing is being written any more


def _clean_up(config: Config, datadir: DataDir, paths: frozenset[Path] | None) -> None:
    """After an earlier node. `paths`: where it was writing; None: that is not known."""
    if checks_after_unclean_end(config):
        note_unclean_end(datadir, paths, time.time())
    else:
        RunningMark(datadir).clear()
    sweep_data_dir(datadir, paths)


class Node:
    """Starts the parts, watches them, and stops them in order."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._name = parts.config.node.name

    async def run(self, config_file: Path | None, hangups: Hangups) -> None:
        """Listen, take part in the election, and stop in order on SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._announce()
            reloader = Reloader(self._parts.config, config_file, self._parts.ssh.reload_keys)
            await self._work(stop, reloader, hangups)

    async def _start(self, stack: AsyncExitStack) -> None:
        """Start everything but the election; `stack` stops it in the opposite order."""
        parts = self._parts
        stack.push_async_callback(parts.address.close)
        await parts.address.start()
        if parts.repositories.journal is not None:
            stack.push_async_callback(parts.repositories.journal.close)
        stack.push_async_callback(parts.ssh.close)
        ssh = await parts.ssh.start()
        stack.push_async_callback(parts.http.close)
        parts.listeners.listen_on(ssh, await parts.http.start())
        stack.push_async_callback(parts.control.close)
        await parts.control.start()
        await parts.repositories.store.census()  # before any push: what was there before is known
        parts.checks.start()
        stack.callback(parts.checks.stop)
        parts.volumes.start()
        stack.callback(parts.volumes.stop)
        stack.push_async_callback(parts.engine.close)
        stack.callback(parts.elector.close)

    async def _work(self, stop: asyncio.Event, reloader: Reloader, hangups: Hangups) -> None:
        """Until `stop`; a part that fails ends the node, loudly."""
        parts = self._parts
        async with task_group() as group:
            background = [
                group.create_task(feed_watchdog(parts.config.election.watchdog_s), name="watchdog"),
                group.create_task(reloader.run(hangups), name="reload"),
                group.create_task(parts.repositories.housekeeping.run(), name="housekeeping"),
                group.create_task(watch_host_keys(parts.elector, parts.fingerprints), name="host-keys"),
                group.create_task(parts.repositories.survey.run(), name="survey"),
                group.create_task(parts.concern_log.run(), name="concern-log"),
                group.create_task(parts.repositories.scrub.run(), name="scrub"),
                group.create_task(stop.wait(), name="stop"),
            ]
            lifecycle = group.create_task(parts.lifecycle.run(), name="lifecycle")
            await asyncio.wait({lifecycle, background[-1]}, return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                log.info("stopping", node=self._name)
                notify_systemd("STOPPING=1")
                parts.leadership.stop()
                parts.lifecycle.stop()
                await asyncio.wait({lifecycle})  # each of its steps has its own limit
            for task in background:
                task.cancel()
        log.info("stopped", node=self._name)

    def _announce(self) -> None:
        parts = self._parts
        log.info(
            "node_started",
            node=self._name,
            version=__version__,
            pid=os.getpid(),
            data_dir=str(parts.datadir.root),
            ssh=[str(one) for one in parts.listeners.ssh],
            http=[str(one) for one in parts.listeners.http],
        )
        notify_systemd("READY=1")
        if parts.config.cluster is None and sys.stderr.isatty():
            sys.stderr.write(next_steps(parts.config, parts.listeners.ssh[0]))
