"""`stargate serve`: one node, in the foreground, until SIGTERM or SIGINT."""

import asyncio
import os
from pathlib import Path

import click
import structlog

from stargate_gate.cli.running_node import config_option
from stargate_gate.config.files import check_files
from stargate_gate.config.load import config_path, load_config
from stargate_gate.config.model import Config
from stargate_gate.errors import ConfigurationError, StargateError
from stargate_gate.logs import configure_logging
from stargate_gate.node import run_node

UMASK = 0o027  # what the node makes may be read by its group, and by nobody else
LOCK_KEY = "election.flock.path:"

log = structlog.get_logger()


@click.command("serve")
@config_option
def serve(config_file: Path | None) -> None:
    """Run a node in the foreground.

    SIGTERM or Ctrl-C steps down first: running pushes are finished, and a standby takes over. The
    log goes to stderr.
    """
    os.umask(UMASK)
    config = load_config(config_file)
    _require_files(config, config_file)
    configure_logging(config.log.format, config.log.level)
    try:
        asyncio.run(run_node(config))
    except StargateError:
        raise
    except Exception:
        log.exception("node_failed")  # a bug may not show again: the traceback is worth its place in the log
        raise


def _require_files(config: Config, config_file: Path | None) -> None:
    """The keys that the file points at can be used.

    A shared volume that is not there is no mistake of the file's: the node starts, serves reads, and
    says that it cannot lead.
    """
    problems = [problem for problem in check_files(config) if not problem.startswith(LOCK_KEY)]
    if problems:
        raise ConfigurationError([f"{config_path(config_file) or 'defaults'}: {text}" for text in problems])
