"""A problem of the configuration as a value, and how its key is shown."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]  # ("ssh", "listen", 1); () is the whole file


@dataclass(frozen=True)
class Finding:
    """One problem.

    key       where it is
    text      "what is wrong; remedy"
    involves  the other keys it was derived from; the finding is dropped if one of them is wrong itself
    meant     the known key that an unknown key probably stands for; it is not reported as missing, too
    line      from 1; only if `key` is not enough, as for the second of two equal keys
    """

    key: KeyPath
    text: str
    involves: tuple[KeyPath, ...] = ()
    meant: KeyPath | None = None
    line: int | None = None


def dotted(key: KeyPath) -> str:
    """`ssh.listen[1]`. A part that cannot be printed is quoted."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            word = part if part.isprintable() and part.strip() and len(part) <= 60 else repr(part[:60])  # noqa: PLR2004 - characters that fit in a line
            text += f".{word}" if text else word
    return text


def without_index(key: KeyPath) -> KeyPath:
    """The key of the list that contains `key`; `key` itself if it is in none."""
    return tuple(itertools.takewhile(lambda part: isinstance(part, str), key))


def without_consequences(derived: Iterable[Finding], found: Iterable[Finding]) -> list[Finding]:
    """The findings of `derived` that do not depend on a value that is wrong according to `found`."""
    wrong = {without_index(key) for finding in found for key in (finding.key, finding.meant) if key}
    return [
        finding
        for finding in derived
        if not any(
            key[:length] in wrong
            for key in (finding.key, *finding.involves)
            for length in range(1, len(key) + 1)
        )
    ]
