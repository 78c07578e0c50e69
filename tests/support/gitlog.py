"""A `git` that writes down when it runs, put before the real one on a node's PATH."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

SCRIPT = """#!/bin/sh
# One line when a command starts and one when it ends: its repository, its pid, its subcommand.
dir=none word=none
for arg; do
    case $arg in
        --git-dir=*) ;;
        fetch|update-ref|for-each-ref|init|symbolic-ref|cat-file|repack|gc|pack-refs|upload-pack|receive-pack)
            if [ "$word" = none ]; then word=$arg; fi ;;
        *.git) dir=$arg ;;
    esac
done
echo "start $word $$ $dir" >>"LOG"
if [ "$word" = fetch ] && [ -e "HOLD/$(basename "$dir")" ]; then
    read -r _ <"HOLD/$(basename "$dir")"
fi
GIT "$@"
status=$?
echo "end $word $$ $dir" >>"LOG"
exit $status
"""


@dataclass(frozen=True)
class Event:
    """A command started or ended. `repository` is its folder's name, or "none"."""

    kind: str
    word: str
    repository: str


class GitLog:
    """Start a node with `env`, and read here what git did for it."""

    def __init__(self, folder: Path) -> None:
        real = shutil.which("git")
        assert real is not None
        self._log, self._hold = folder / "git.log", folder / "hold"
        (folder / "bin").mkdir(parents=True)
        self._hold.mkdir()
        self._log.touch()
        script = folder / "bin" / "git"
        text = SCRIPT.replace("LOG", str(self._log)).replace("HOLD", str(self._hold))
        script.write_text(text.replace("GIT", real))
        script.chmod(0o755)
        self.env = {"PATH": f"{script.parent}:{os.environ['PATH']}"}

    def hold(self, repository: str) -> None:
        """Fetches of `repository` ("app.git") wait before they begin, until `let_go`."""
        os.mkfifo(self._hold / repository)

    def let_go(self, repository: str) -> None:
        """The fetch that waits goes on, and later ones do not wait. To be called when one waits."""
        fifo = self._hold / repository
        descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        fifo.unlink()
        os.write(descriptor, b"go\n")
        os.close(descriptor)

    def events(self) -> list[Event]:
        """Everything so far, in order."""
        lines = (line.split(" ", 3) for line in self._log.read_text().splitlines())
        return [Event(kind, word, Path(folder).name) for kind, word, _, folder in lines]

    def in_repositories(self) -> int:
        """How many commands were started so far that work on a repository."""
        return sum(event.kind == "start" and event.repository != "none" for event in self.events())
