"""Durations as people write them: `90`, `30s`, `15m`, `1h30m`, `7d`, `2w`. Pure."""

import re

from stargate_gate.kv.errors import KvUsageError

_UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw]?)", re.ASCII)
_WHOLE = re.compile(r"(?:\d+(?:\.\d+)?[smhdw])*\d+(?:\.\d+)?[smhdw]?", re.ASCII)
MAX_S = 1000 * 365 * 86_400  # a date still has four digits then


def seconds(text: str) -> float:
    """How long that is: more than nothing, at most a thousand years.

    Raises:
        KvUsageError
    """
    if not _WHOLE.fullmatch(text):
        raise KvUsageError(f"bad duration: {text!r}; write for example 30s, 15m, 12h or 1d12h")
    total = sum(float(number) * _UNIT_S[unit] for number, unit in _PART.findall(text))
    if not 0 < total <= MAX_S:
        raise KvUsageError(f"bad duration: {text!r} is not between zero and a thousand years")
    return total
