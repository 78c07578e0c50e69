"""The plain values in a message of the feed: each is read strictly, or refused. Pure.

For an invalid value every function raises ValueError, or what Python raises for a wrong type.
"""

import re
from collections.abc import Callable
from typing import Any

from stargate_gate.election.port import Member
from stargate_gate.repos.names import RESERVED, RepositoryName, parse_repository_name

NUMBERS = 1 << 64

_OID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REF = re.compile(r"refs/[^\x00-\x20\x7f]{1,4096}")
_ID = re.compile(r"[0-9a-f]{32}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_HEAD = re.compile(rf"(?:ref: {_REF.pattern}|{_OID.pattern})?")  # empty: a HEAD that is neither
_WORD = re.compile(r"[\x21-\x7e]{1,255}")


def _text(pattern: re.Pattern[str]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError(f"unexpected {value!r:.100}")
        return value

    return read


read_oid, read_id, read_digest, read_head, read_word = map(_text, (_OID, _ID, _DIGEST, _HEAD, _WORD))


def read_ref(value: Any) -> str:
    """The full name of a ref that is not reserved."""
    if not isinstance(value, str) or not _REF.fullmatch(value):
        raise ValueError(f"not a ref: {value!r:.100}")
    if value == RESERVED or value.startswith(f"{RESERVED}/"):
        raise ValueError(f"{value!r:.100} is reserved")
    return value


def read_number(value: Any) -> int:
    """A whole number from 0 that has 64 bits at most: no arithmetic with times and counts fails on it."""
    if type(value) is not int or not 0 <= value < NUMBERS:
        raise ValueError(f"not a number: {value!r:.100}")
    return value


def read_seconds(value: Any) -> float:
    """A length of time, in seconds."""
    if not isinstance(value, int | float) or not 0 < value < 86400:  # noqa: PLR2004 - a day of silence
        raise ValueError(f"not a time: {value!r:.100}")
    return float(value)


def read_member(value: Any) -> Member:
    """A node: [name, data_dir id]."""
    name, data_dir_id = value
    return Member(read_word(name), read_word(data_dir_id))


def read_name(value: Any) -> RepositoryName:
    """A repository's name, as it is written."""
    name = parse_repository_name(value)
    if name.value != value:
        raise ValueError(f"not a repository's name: {value!r:.100}")
    return name


def read_flag(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError(f"not true or false: {value!r:.100}")  # noqa: TRY004 - all of these are ValueErrors
    return value


def read_line(value: Any) -> str:
    """Any text."""
    if not isinstance(value, str):
        raise ValueError(f"not a text: {value!r:.100}")  # noqa: TRY004 - all of these are ValueErrors
    return value
