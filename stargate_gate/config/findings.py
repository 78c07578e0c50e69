"""A problem of the configuration as a value, and how one looks to an operator."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]  # ("ssh", "listen", 1); () is the whole file


@dataclass(frozen=True)
class Finding:
    """One problem: `key` is where, `text` is "what is wrong; remedy".

    `involves` are the other keys it was derived from: it says nothing if one of them is wrong itself.
    `meant` is the key that was meant by an unknown one: that it is missing is no second problem.
    `line` (from 1) is given where `key` alone does not tell it, as for the second of two equal keys.
    """

    key: KeyPath
    text: str
    involves: tuple[KeyPath, ...] = ()
    meant: KeyPath | None = None
    line: int | None = None


def dotted(key: KeyPath) -> str:
    """`ssh.listen[1]`; what cannot be shown as it is is quoted."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            word = part if part.isprintable() and part.strip() and len(part) <= 60 else repr(part[:60])  # noqa: PLR2004
            text += f".{word}" if text else word
    return text


def without_index(key: KeyPath) -> KeyPath:
    """The key whose value is the list that `key` is in, else `key`."""
    return tuple(itertools.takewhile(lambda part: isinstance(part, str), key))


def without_consequences(derived: Iterable[Finding], found: Iterable[Finding]) -> list[Finding]:
    """Those of `derived` that do not rest on a value that is known to be wrong from `found`."""
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
