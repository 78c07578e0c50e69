"""A server process of its own whose handler takes an upload slowly; prints its peak memory.

Run as: slow_reader.py DIRECTORY paced|stock. DIRECTORY holds host_key and authorized_keys. Prints the
port, and after the one upload a line of JSON.
"""

import asyncio
import json
import re
import sys
from pathlib import Path
from unittest.mock import patch

import structlog

from stargate_gate.access.host_keys import load_host_keys
from stargate_gate.gate.ports import Channel, Request
from stargate_gate.gate.ssh import backpressure
from stargate_gate.gate.ssh.server import ServerSettings, SshServer

PAUSE_S = 0.001  # per chunk of 64 KiB: slower than ssh sends


def peak_mb() -> float:
    """VmHWM of this process."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


class SlowReader:
    """Takes everything, a chunk at a time."""

    def __init__(self) -> None:
        self.done = asyncio.Event()
        self.buffered = 0

    async def handle(self, request: Request, channel: Channel) -> int:
        """Read to the end of file."""
        total = 0
        while data := await channel.read(65536):
            total += len(data)
            self.buffered = max(self.buffered, channel._received_bytes)  # type: ignore[attr-defined]
            await asyncio.sleep(PAUSE_S)
        await channel.write(f"{total}\n".encode())
        await channel.exit(0)
        self.done.set()
        return 0


async def main(directory: Path) -> None:
    """Serve one upload."""
    reader = SlowReader()
    server = SshServer(
        reader,
        load_host_keys([directory / "host_key"]),
        ServerSettings(listen=(("127.0.0.1", 0),), authorized_keys=directory / "authorized_keys"),
    )
    ((_, port),) = await server.start()
    before = peak_mb()
    print(port, flush=True)  # noqa: T201
    await reader.done.wait()
    await server.close()
    print(json.dumps({"grown_mb": peak_mb() - before, "buffered": reader.buffered}), flush=True)  # noqa: T201


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    as_checked = sys.argv[2] == "paced"
    with patch.object(backpressure, "asyncssh_is_as_checked", lambda: as_checked):
        asyncio.run(main(Path(sys.argv[1])))
