"""`stargate serve`: one node, in the foreground, until SIGTERM or SIGINT."""

import asyncio
import contextlib
import os
import resource
from pathlib import Path

import click
import structlog

from stargate_gate.aio.sighup import Hangups, ignore
from stargate_gate.cli.places import require_own_data_dir
from stargate_gate.cli.running_node import config_option
from stargate_gate.config.findings import dotted
from stargate_gate.config.load import load_checked_config
from stargate_gate.config.rules import doubtful
from stargate_gate.errors import StargateError
from stargate_gate.logs import configure_logging
from stargate_gate.node.node import run_node

MAX_DESCRIPTORS = 65536  # what systemd/stargate.service sets
UMASK = 0o027  # the node's group may read its files, others may not

log = structlog.get_logger()


@click.command("serve")
@config_option
def serve(config_file: Path | None) -> None:
    """Run a node in the foreground.

    On SIGTERM or Ctrl-C it steps down first: running pushes are finished, and a standby takes over. On
    SIGHUP it reads the users' keys and the log settings again. The log goes to stderr.
    """
    hangups = Hangups()
    hangups.listen()
    os.umask(UMASK)
    _allow_descriptors()
    # A missing shared volume is not an error in the file, and reading it may hang. The node starts without
    # it, serves reads, and reports that it cannot lead.
    config = load_checked_config(config_file, shared_volume=False)
    require_own_data_dir(config, shared_volume=False)
    configure_logging(config.log.format, config.log.level)
    for finding in doubtful(config):
        log.warning("configuration_doubtful", key=dotted(finding.key), problem=finding.text)
    try:
        asyncio.run(run_node(config, config_file, hangups))
    except StargateError:
        raise
    except Exception:
        log.exception("node_failed")  # a bug may not happen again, so the traceback must be in the log
        raise
    finally:
        ignore()


def _allow_descriptors() -> None:
    """Raise the limit of open files: shells set 1024, which is less than the default limits need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
