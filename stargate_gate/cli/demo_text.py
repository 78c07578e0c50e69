"""What the demo says: the page to copy from, one line for each event, prefixed lines of the nodes."""

import os
import sys
from collections.abc import Iterator

from stargate_gate.cli.demo_files import LOOPBACK, REPOSITORY, DemoFiles, NodeFiles

RULE_COLUMNS = 86
DEMO = "demo"
COLOURS = {"node-a": "36", "node-b": "35", DEMO: "1;32"}  # SGR: cyan, magenta, bold green


class Screen:
    """Writes whole lines to stdout; colours only on a terminal, unless NO_COLOR is set."""

    def __init__(self) -> None:
        self.colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        wide = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        self._bar, self._rule = ("│", "─") if wide else ("|", "-")

    @property
    def environment(self) -> dict[str, str]:
        """What makes a node's own lines match this screen."""
        return {"FORCE_COLOR": "1"} if self.colours else {"NO_COLOR": "1"}

    def line(self, who: str, text: str) -> None:
        """A line of a node's, or of the demo itself, behind who says it."""
        self._write(self._paint(f"{who:<6} {self._bar}", COLOURS[who]) + f" {text}\n")

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
    git clone -c user.name=you -c user.email=you@demo {first.url}
    cd {REPOSITORY}
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

 {first.name} comes back as a standby after a few seconds, so you can kill the next one."""


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
