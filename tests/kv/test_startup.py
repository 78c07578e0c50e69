"""What a command imports: it is started anew for every key."""

import subprocess
import sys

import pytest

HEAVY = {
    "asyncio",
    "yaml",
    "pydantic",
    "structlog",
    "aiohttp",
    "asyncssh",
    "portalocker",
    "traceback",
    "urllib",
}


def modules(code: str) -> set[str]:
    """What a new interpreter has imported; the code prints it."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=True)
    return set(done.stdout.decode().split())


@pytest.mark.parametrize("command", ["get", "set"])
def test_a_command_imports_little(command: str) -> None:
    """Nothing of a server, and nothing that only errors need."""
    code = f"import sys, stargate_gate.cli.kv.main, stargate_gate.cli.kv.{command}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    before = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    imported = set(done.stdout.split()) - set(before.stdout.split())
    assert not imported & HEAVY
    assert not {name for name in imported if name.startswith("stargate_gate.") and ".kv" not in name} - {
        "stargate_gate.cli", "stargate_gate.cli.lazy", "stargate_gate.errors", "stargate_gate.exitcodes",
        "stargate_gate.printable",
    }  # fmt: skip
