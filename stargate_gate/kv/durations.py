"""Durations as people write them: `90`, `30s`, `15m`, `1h30m`, `7d`, `2w`. Pure."""

import re

from stargate_gate.kv.errors import KvUsageError

_UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_PART = r"(\d+(?:\.\d+)?)([smhdw]?)"
_WHOLE = r"(?:\d+(?:\.\d+)?[smhdw])*\d+(?:\.\d+)?[smhdw]?"
MAX_S = 1000 * 365 * 86_400  # so that the year of a date has four digits


def seconds(text: str) -> float:
    """The number of seconds: more than 0, at most a thousand years.

    Raises:
        KvUsageError
    """
    if not re.fullmatch(_WHOLE, text, re.ASCII):
        raise KvUsageError(f"bad duration: {text!r}; write for example 30s, 15m, 12h or 1d12h")
    total = sum(float(number) * _UNIT_S[unit] for number, unit in re.findall(_PART, text, re.ASCII))
    if not 0 < total <= MAX_S:
        raise KvUsageError(f"bad duration: {text!r} is not between zero and a thousand years")
    return total
