"""What the demo says: the page to copy from, one line for each event, prefixed lines of the nodes."""

import os
import re
import shutil
import sys
from collections.abc import Iterator

from stargate_gate.cli.demo_files import LOOPBACK, REPOSITORY, DemoFiles, NodeFiles

RULE_COLUMNS = 78  # a terminal has 80, and the page is no wider
DEMO = "demo"
COLOURS = {"node-a": "36", "node-b": "35", DEMO: "1;32"}  # SGR: cyan, magenta, bold green
ROUTINE = ("debug", "info")  # levels whose lines may lose their end; what is wrong is told in full
SGR = re.compile(r"(\x1b\[[0-9;]*m)")


class Screen:
    """Writes whole lines to stdout.

    Colours only on a terminal, unless NO_COLOR is set; there, what a node says in passing is cut to one
    line of the screen.
    """

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self.colours = self._terminal and not os.environ.get("NO_COLOR")
        wide = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        self._bar, self._rule, self._more = ("│", "─", "…") if wide else ("|", "-", ">")

    @property
    def environment(self) -> dict[str, str]:
        """What makes a node's own lines match this screen."""
        return {"FORCE_COLOR": "1"} if self.colours else {"NO_COLOR": "1"}

    def line(self, who: str, text: str) -> None:
        """A line of a node's, or of the demo itself, behind who says it."""
        line = self._paint(f"{who:<6} {self._bar}", COLOURS[who]) + f" {text}"
        if self._terminal and who != DEMO and _level(text) in ROUTINE:
            line = cut(line, shutil.get_terminal_size().columns, self._more)
        self._write(line + "\n")

    def say(self, text: str) -> None:
        """A line of the demo's own."""
        self.line(DEMO, self._paint(text, "1"))

    def page(self, text: str) -> None:
        """A page between two rules; lines that start with four blanks are to be copied."""
        rule = self._paint(self._rule * RULE_COLUMNS, COLOURS[DEMO])
        lines = [self._paint(line, "1") if line.startswith("    ") else line for line in text.splitlines()]
        self._write("\n".join(["", rule, *lines, rule, "", ""]))

    def _paint(self, text: str, sgr: str) -> str:
        return f"\x1b[{sgr}m{text}\x1b[0m" if self.colours else text

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def _level(text: str) -> str:
    """The level of a node's console line (`12:00:00.000 info …`); "" of a line that continues another."""
    words = SGR.sub("", text).split(maxsplit=2)
    return words[1] if len(words) > 1 else ""


def cut(line: str, columns: int, more: str) -> str:
    """`line` in at most `columns` columns, ending in `more` if it lost something; colours take no room."""
    if len(SGR.sub("", line)) <= columns:
        return line
    kept, room = [], columns - 1
    for index, part in enumerate(SGR.split(line)):
        is_colour = index % 2 == 1
        kept.append(part if is_colour else part[:room])
        room -= 0 if is_colour else len(kept[-1])
        if not room:
            break
    return "".join(kept) + ("\x1b[0m" if len(kept) > 1 else "") + more


def guide(files: DemoFiles, leader_pid: int) -> str:
    """The page that is printed once both nodes run.

    Every command works verbatim in sh and bash, also when several are pasted at once: so `ssh -n`,
    which does not eat the lines behind it.
    """
    first, second = files.nodes
    ssh = files.git_ssh_command
    return f"""\
 Stargate runs. {first.name} leads; {second.name} follows it.
 Open a second terminal and paste these. Ctrl-C here ends everything.

 1. Tell git which key to use.
    export GIT_SSH_COMMAND='{ssh}'

 2. Clone, commit, push to {first.name}.
    cd {files.root}
    git clone {first.url}
    cd {REPOSITORY}
    git config user.name you; git config user.email you@demo
    echo one >> README.md; git commit -qam one; git push

 3. Ask how the nodes do.
    ssh -n -p {first.ssh_port} -F {files.ssh_config} {LOOPBACK} health
    ssh -n -p {second.ssh_port} -F {files.ssh_config} {LOOPBACK} status
    curl -i http://{LOOPBACK}:{first.http_port}/readyz

 4. Push to the standby: it refuses, "not leader", and names the leader.
    git push {second.url}

 5. Kill the leader. {second.name} takes over within a second.
    kill -9 {leader_pid}

 6. Push on, to {second.name}: nothing else has changed.
    echo two >> README.md; git commit -qam two
    git push {second.url}

 {first.name} comes back as a standby after a few seconds: kill the next one."""


def ended(name: str, status: int) -> str:
    """How a node ended, in words."""
    if status == 0:
        return f"{name} stepped down and ended"
    if status < 0:
        return f"{name} was killed (signal {-status})"
    return f"{name} ended with exit status {status}"


def took_over(leader: NodeFiles, term: int, gap_s: float, pid: int) -> Iterator[str]:
    """A new leader, how fast, and what to do now."""
    yield f"{leader.name} leads now, in term {term}, {gap_s:.2f} s later (pid {pid}); push on:"
    yield f"   git push {leader.url}"
