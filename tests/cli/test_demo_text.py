"""What the demo prints, without nodes: how wide, how high, what can be pasted."""

import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from stargate_gate.cli.demo_files import DemoFiles, NodeFiles
from stargate_gate.cli.demo_text import RULE_COLUMNS, guide

COLUMNS, ROWS = 80, 24
SHOW = """
import sys
from pathlib import Path
from stargate_gate.cli.demo_files import DemoFiles, NodeFiles
from stargate_gate.cli.demo_text import Screen, guide
root = Path("/tmp/stargate-demo-12345678")
nodes = tuple(NodeFiles(name, root / f"{name}.yaml", 45678, 45679) for name in ("node-a", "node-b"))
Screen().page(guide(DemoFiles(root, root / "ssh", nodes), nodes[0], 4194304, enter=True))
"""


def example(root: Path) -> DemoFiles:
    """A demo in `root`; ports may have five digits."""
    nodes = tuple(NodeFiles(name, root / f"{name}.yaml", 45678, 45679) for name in ("node-a", "node-b"))
    return DemoFiles(root, root / "ssh", nodes)


def page_on_a_terminal(rows: int) -> list[str]:
    """The page as a terminal of 80 columns and that many rows gets it."""
    ours, theirs = pty.openpty()
    try:
        termios.tcsetwinsize(theirs, (rows, COLUMNS))
        environment = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "LINES"}} | {
            "NO_COLOR": "1"
        }
        subprocess.run([sys.executable, "-c", SHOW], stdout=theirs, env=environment, timeout=60, check=True)
        return os.read(ours, 2**16).decode().splitlines()
    finally:
        os.close(theirs)
        os.close(ours)


def test_the_page_fits_a_terminal_of_eighty_columns() -> None:
    """Commands that wrap are hard to copy."""
    files = example(Path("/tmp/stargate-demo-12345678"))
    lines = guide(files, files.nodes[0], 4194304, enter=True).splitlines()
    assert max(map(len, lines)) <= COLUMNS, max(lines, key=len)
    assert RULE_COLUMNS <= COLUMNS


def test_the_page_fits_a_low_terminal_as_a_whole() -> None:
    """Its first step is still there when its last line is, with the cursor below it."""
    lines = page_on_a_terminal(ROWS)
    assert len(lines) < ROWS
    assert any(line.startswith("    export GIT_SSH_COMMAND=") for line in lines)


def test_a_high_terminal_gets_a_page_with_room_between_the_steps() -> None:
    """The same lines, and empty ones."""
    low, high = page_on_a_terminal(ROWS), page_on_a_terminal(50)
    assert [line for line in high if line] == low
    assert high.count("") > 5


@pytest.mark.parametrize("folder", ["a b", "it's", 'say "hi"', "100%", "Käse"])
def test_what_is_pasted_is_one_command_whatever_the_temp_dir_is_called(tmp_path: Path, folder: str) -> None:
    """sh splits the lines as they are meant."""
    root = tmp_path / folder
    root.mkdir()
    files = example(root)
    lines = guide(files, files.nodes[0], 4194304, enter=False).splitlines()
    export = next(line for line in lines if "export" in line)
    change = next(line for line in lines if line.startswith("    cd ")).partition("; git")[0]
    argv = f"{export}; {change}; pwd; eval printf '%s\\\\n' $GIT_SSH_COMMAND"
    done = subprocess.run(["sh", "-c", argv], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines() == [str(root), "ssh", "-F", str(root / "ssh")]


def test_after_a_failover_the_page_names_the_new_leader() -> None:
    """The one to push to, and the one to kill."""
    files = example(Path("/tmp/stargate-demo-12345678"))
    page = guide(files, files.nodes[1], 77, enter=True)
    assert "node-b leads, node-a follows it" in page
    assert "kill -9 77" in page
