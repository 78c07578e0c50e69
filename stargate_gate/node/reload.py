"""What a running node does at SIGHUP: it reads keys and log settings again, and logs what it did.

Nothing here ends the node. If a file is wrong, the log names it, and the old settings stay in force.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import structlog

from stargate_gate.aio.sighup import Hangups
from stargate_gate.aio.worker import Worker
from stargate_gate.config.load import load_checked_config
from stargate_gate.config.model import Config
from stargate_gate.errors import ConfigurationError
from stargate_gate.logs import configure_logging

log = structlog.get_logger()

LEVELS = ("debug", "info", "warning", "error")
READ_LIMIT_S = 30.0  # the file, and what it points at, may lie on a share that does not answer
APPLIED = "log."  # keys that begin like this are put in force; all others need a restart


class Reloader:
    """Waits for SIGHUP, again and again.

    config       as the node was started with it
    config_file  where it is read again; None: as `load_config` finds it
    reload_keys  reads authorized_keys again; how many keys count now
    """

    def __init__(
        self, config: Config, config_file: Path | None, reload_keys: Callable[[], Awaitable[int]]
    ) -> None:
        self._started_with = config
        self._config_file = config_file
        self._reload_keys = reload_keys
        self._level = config.log.level
        self._disk = Worker("reload")

    async def run(self, hangups: Hangups) -> NoReturn:
        """Until cancelled."""
        try:
            while True:
                await hangups.next()
                try:
                    await self._reload()
                except Exception:
                    log.exception("reload_failed")
        finally:
            self._disk.close()

    async def _reload(self) -> None:
        keys = await self._reload_keys()
        config = await self._read()
        if config is None:
            log.info("reloaded", authorized_keys=keys, config="as before")
            return
        restart = changed_keys(self._started_with, config)
        before, self._level = self._level, config.log.level
        if LEVELS.index(self._level) < LEVELS.index(before):  # so that the next line is written in any case
            configure_logging(config.log.format, config.log.level)
        log.info("reloaded", authorized_keys=keys, log_level=config.log.level, needs_restart=restart)
        configure_logging(config.log.format, config.log.level)
        if restart:
            log.warning("config_needs_restart", keys=restart, remedy="restart this node to put them in force")

    async def _read(self) -> Config | None:
        try:
            async with asyncio.timeout(READ_LIMIT_S):
                return await self._disk.call(self._load)
        except ConfigurationError as error:
            problems = list(error.problems)
        except TimeoutError:
            problems = [f"it could not be read within {READ_LIMIT_S:g} s"]
        log.error("config_not_reloaded", problems=problems, effect="everything but the keys stays as it was")
        return None

    def _load(self) -> Config:
        return load_checked_config(self._config_file, shared_volume=False)


def changed_keys(before: Config, after: Config) -> list[str]:
    """Which keys differ and are not put in force by a reload, as "section.key", in order. Pure."""
    old, new = _flat(before.model_dump()), _flat(after.model_dump())
    keys = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    return [key for key in keys if not key.startswith(APPLIED)]


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
