"""What the demo prints, without nodes: how wide, and what may be cut."""

import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from stargate_gate.cli.demo_files import DemoFiles, NodeFiles
from stargate_gate.cli.demo_text import RULE_COLUMNS, SGR, Screen, cut, guide

COLUMNS = 80
INFO = "\x1b[2m12:00:00.000\x1b[0m \x1b[32minfo   \x1b[39m \x1b[1msession\x1b[0m " + "x" * 100
SAY = "import sys; from stargate_gate.cli.demo_text import Screen; Screen().line('node-a', sys.argv[1])"


def on_a_terminal(text: str) -> list[str]:
    """What a terminal of 80 columns gets when a node says `text`."""
    ours, theirs = pty.openpty()
    try:
        termios.tcsetwinsize(theirs, (24, COLUMNS))
        environment = {key: value for key, value in os.environ.items() if key not in {"NO_COLOR", "COLUMNS"}}
        subprocess.run(
            [sys.executable, "-c", SAY, text], stdout=theirs, env=environment, timeout=30, check=True
        )
        return os.read(ours, 4096).decode().splitlines()
    finally:
        os.close(theirs)
        os.close(ours)


def test_the_page_fits_a_terminal_of_eighty_columns() -> None:
    """Commands that wrap are hard to copy; ports may have five digits."""
    root = Path("/tmp/stargate-demo-12345678")
    nodes = tuple(NodeFiles(name, root / f"{name}.yaml", 45678, 45679) for name in ("node-a", "node-b"))
    lines = guide(DemoFiles(root, root / "ssh", nodes), 4194304).splitlines()
    assert max(map(len, lines)) <= COLUMNS, max(lines, key=len)
    assert RULE_COLUMNS <= COLUMNS


def test_a_routine_line_takes_one_line_of_the_screen() -> None:
    """A session's line is long; on a terminal its end gives way, and colours take no room."""
    (line,) = on_a_terminal(INFO)
    assert len(SGR.sub("", line)) == COLUMNS
    assert re.search(r"\x1b\[0m(…|>)$", line)


@pytest.mark.parametrize("level", ["warning", "error"])
def test_a_warning_is_told_in_full(level: str) -> None:
    """What is wrong, and what to do, stands at the end of a line."""
    text = f"12:00:00.000 {level} mode_in_force " + "x" * 100
    assert text in "".join(on_a_terminal(text))


def test_a_pipe_gets_every_line_in_full_and_no_colours(capsys: pytest.CaptureFixture[str]) -> None:
    """Who writes the output to a file wants to search it."""
    text = SGR.sub("", INFO)
    Screen().line("node-a", text)
    assert capsys.readouterr().out in {f"node-a │ {text}\n", f"node-a | {text}\n"}


@pytest.mark.parametrize("columns", [1, 2, 30, 200])
def test_cutting_keeps_within_the_columns(columns: int) -> None:
    """Whatever the width: never wider, and nothing is lost that fits."""
    plain = SGR.sub("", INFO)
    assert len(SGR.sub("", cut(INFO, columns, "…"))) == min(columns, len(plain))
    assert cut(INFO, len(plain), "…") == INFO
