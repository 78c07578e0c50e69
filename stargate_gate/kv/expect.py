"""Checks the value of `--expect`. Pure."""

import re

from stargate_gate.kv.errors import KvUsageError
from stargate_gate.kv.transaction import ABSENT

_OID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?", re.ASCII)


def check_expected(text: str | None) -> str | None:
    """Returns `text` if it is a whole object id, "absent" or None.

    Raises:
        KvUsageError
    """
    if text is None or text == ABSENT or _OID.fullmatch(text):
        return text
    raise KvUsageError(f"bad --expect: {text!r} is neither a whole object id nor {ABSENT!r}")
