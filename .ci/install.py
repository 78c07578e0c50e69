"""Makes a virtual environment and installs into it: `install.py VENV PIP-ARGUMENTS…`.

Says what it does and for how long, since pip is silent for half a minute: on a terminal in one line that
changes each second, else in a line for each step and one every ten seconds. When it fails, everything that
was written is shown. Needs nothing but Python's own library.
"""

import subprocess
import sys
import threading
import time
from pathlib import Path

CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"
TICK_S = 1.0
QUIET_TICKS = 10  # lines in a pipe or a CI log
COLUMNS = 78
FAILED = 69


class Step:
    """One command, and a line about it."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._now = ""
        self._seen = 0
        self._began_s = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def run(self, argv: list[str]) -> bool:
        """Whether it ended well. Shows what it wrote, if not."""
        self._show(self._terminal)
        said = []
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            ended = threading.Event()
            ticking = threading.Thread(target=self._tick, args=[ended], daemon=True)
            ticking.start()
            for line in process.stdout or ():
                said.append(line)
                self._follow(line.split())
            status = process.wait()
            ended.set()
            ticking.join()
        if status:
            sys.stderr.write(f"\n{''.join(said)}set-up: this failed: {' '.join(argv)}\n")
        else:
            self._now = "done"
            self._show(self._terminal)
            sys.stderr.write("\n" if self._terminal else "")
        return status == 0

    def _follow(self, words: list[str]) -> None:
        if words[:1] == ["Collecting"]:
            self._seen += 1
            self._now = f"{self._seen} packages found, now {words[1]}"
        elif words[:2] == ["Installing", "collected"]:
            self._now = f"writing {self._seen} packages"

    def _tick(self, ended: threading.Event) -> None:
        ticks = 0
        while not ended.wait(TICK_S):
            ticks += 1
            if self._terminal or ticks % QUIET_TICKS == 0:
                self._show(self._terminal)

    def _show(self, over: bool) -> None:
        spent_s = time.monotonic() - self._began_s
        line = f"set-up: {self._what}; {spent_s:.0f} s; {self._now}".rstrip("; ")[:COLUMNS]
        sys.stderr.write(f"\r{line}\x1b[K" if over else f"{line}\n")
        sys.stderr.flush()


def main(venv: str, *arguments: str) -> int:
    """The exit status: 0, or 69."""
    python = str(Path(venv) / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--constraint", str(CONSTRAINTS)]
    well = Step(f"making {venv}").run([sys.executable, "-m", "venv", venv]) and Step(
        f"installing into {venv} (once)"
    ).run([*pip, "--progress-bar", "off", *arguments])
    return 0 if well else FAILED


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
