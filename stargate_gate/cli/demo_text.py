"""The texts of the demo: the page with commands, and one line for each event."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from stargate_gate.cli.demo_files import LOOPBACK, REPOSITORY, DemoFiles, NodeFiles

RULE_COLUMNS = 78  # a terminal has 80; the page is not wider
EVENT_ROWS = 8  # kept free for the events when a leader is killed; else the page loses its empty lines
TAIL_LINES = 15  # of a node's log, shown if it does not start
NODE_ENVIRONMENT: Mapping[str, str] = {"NO_COLOR": "1"}  # their logs go to files


class Screen:
    """Writes whole lines to stdout. Colours only on a terminal, unless NO_COLOR is set."""

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty()
        self._colours = self.terminal and not os.environ.get("NO_COLOR")
        wide = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        self._bar, self._rule = ("│", "─") if wide else ("|", "-")

    def say(self, text: str) -> None:
        """Write a line after the word "demo"."""
        self._write(f"{self._paint(f'demo {self._bar}', '1;32')} {self._paint(text, '1')}\n")

    def page(self, text: str) -> None:
        """Write a page between two rules. Lines that start with four blanks are to be copied.

        If the terminal has too few rows, empty lines are left out.
        """
        rule = self._paint(self._rule * RULE_COLUMNS, "1;32")
        lines = [self._paint(line, "1") if line.startswith("    ") else line for line in text.splitlines()]
        page = ["", rule, *lines, rule, ""]
        if self.terminal and shutil.get_terminal_size().lines < len(page) + EVENT_ROWS:
            page = [line for line in page if line]
        self._write("\n".join([*page, ""]))

    def _paint(self, text: str, sgr: str) -> str:
        return f"\x1b[{sgr}m{text}\x1b[0m" if self._colours else text

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def guide(files: DemoFiles, leader: NodeFiles, leader_pid: int, *, enter: bool) -> str:
    """The page that is printed when both nodes run, and again when the user presses Enter.

    Every command works as it is in sh and bash, also if several are pasted at once. That needs `ssh -n`,
    which does not read the lines after it.
    """
    standby = files.other(leader)
    again = "; Enter shows this page again" if enter else ""
    ssh = f"ssh -n -F {shlex.quote(str(files.ssh_config))} -p"
    return f"""\
 Stargate runs: {leader.name} leads, {standby.name} follows it. Ctrl-C here ends everything.
 Paste these lines into a second terminal{again}.

 1. Tell git which key to use.
    export GIT_SSH_COMMAND={shlex.quote(files.git_ssh_command)}

 2. Clone, commit, push to {leader.name}.
    cd {shlex.quote(str(files.root))}; git clone {leader.url}
    cd {REPOSITORY}; git config user.name you; git config user.email you@demo
    echo one >> README.md; git commit -qam one; git push

 3. Ask how the nodes do.
    {ssh} {leader.ssh_port} {LOOPBACK} health
    {ssh} {standby.ssh_port} {LOOPBACK} status
    curl -i http://{LOOPBACK}:{leader.http_port}/readyz

 4. Push to the standby: it refuses, "not leader", and names the leader.
    git push {standby.url}

 5. Kill the leader. {standby.name} takes over within a second.
    kill -9 {leader_pid}

 6. Push on, to {standby.name}: nothing else has changed.
    echo two >> README.md; git commit -qam two
    git push {standby.url}"""


def ended(name: str, status: int) -> str:
    """How a node ended, as a line."""
    if status == 0:
        return f"{name} stepped down and ended"
    if status < 0:
        return f"{name} was killed (signal {-status})"
    return f"{name} ended with exit status {status}"


def took_over(leader: NodeFiles, term: int, gap_s: float, pid: int) -> Iterator[str]:
    """The lines about a new leader: how long it took, and what to do now."""
    yield f"{leader.name} leads now, in term {term}, {gap_s:.2f} s later (pid {pid}); push on:"
    yield f"   git push {leader.url}"


def tail(log_file: Path) -> list[str]:
    """The last lines of a node's log, shown if it does not start."""
    try:
        return log_file.read_text(errors="replace").splitlines()[-TAIL_LINES:]
    except OSError:
        return []
