"""The runbook's blocks of commands: which are run, under which names, and which are not, and why."""

import re
from dataclasses import dataclass
from pathlib import Path

RUNBOOK = Path(__file__).resolve().parents[2] / "docs" / "runbook.md"
NOT_RUN = "# not run by the tests: "
FENCE = re.compile(r"^( *)```(\S*) *(.*)$")


@dataclass(frozen=True)
class Block:
    """One fenced block. `name` is what stands behind run=, else empty."""

    line: int
    language: str
    name: str
    text: str


def blocks(markdown: str) -> list[Block]:
    """Every fenced block, without the indentation of its fence."""
    found: list[Block] = []
    opened: tuple[int, re.Match[str]] | None = None
    lines: list[str] = []
    for number, line in enumerate(markdown.splitlines(), start=1):
        fence = FENCE.match(line)
        if opened is None and fence:
            opened, lines = (number, fence), []
        elif opened is not None and fence:
            start, first = opened
            text = "".join(f"{one.removeprefix(first[1])}\n" for one in lines)
            found.append(Block(start, first[2], first[3].removeprefix("run="), text))
            opened = None
        else:
            lines.append(line)
    if opened is not None:
        raise ValueError(f"the block that begins in line {opened[0]} does not end")
    return found


def script(name: str) -> str:
    """The commands of the block with that name; where several have it, they are the same."""
    (text,) = {block.text for block in blocks(RUNBOOK.read_text()) if block.name == name}
    return text
