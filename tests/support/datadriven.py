"""Scenarios as text: commands in, output out. In the manner of etcd raft's testdata.

A file has blocks, with an empty line between them:

    # what this block shows
    command one
    command two
    ----
    the output of both
    of any number of lines

`check` runs the commands of each block and compares the output with what the file says. With `--rewrite`
pytest writes the output into the files instead: read the difference before you commit it.
"""

from collections.abc import Callable
from pathlib import Path

RULE = "----"

Run = Callable[[str], list[str]]


def check(path: Path, run: Run, *, rewrite: bool) -> None:
    """Run the blocks of that file, in order. `run` is given one command, and returns lines of output."""
    done = []
    for block in path.read_text().strip("\n").split("\n\n"):
        given = block.splitlines()
        commands = given[: given.index(RULE)] if RULE in given else given
        output = [line for command in commands if not command.startswith("#") for line in run(command)]
        expected = given[len(commands) + 1 :]
        done.append("\n".join([*commands, RULE, *output]))
        if not rewrite:
            assert output == expected, f"{path.name}: after {commands}"
    if rewrite:
        path.write_text("\n\n".join(done) + "\n")
