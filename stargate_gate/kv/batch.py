"""The lines of `mset`: one operation each, as JSON. Pure: the caller reads the files that lines name.

{"op": "set", "key": …, "value": … | "value_b64": … | "file": …, "ctype": …, "ttl": …, "expect": …}
{"op": "del", "key": …, "expect": …}
"""

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from stargate_gate.errors import StargateError
from stargate_gate.kv.durations import seconds
from stargate_gate.kv.errors import KvUsageError
from stargate_gate.kv.keys import check_key
from stargate_gate.kv.records import DEFAULT_CTYPE, timestamp
from stargate_gate.kv.transaction import Drop, Operation, Put, check_expected

_CONTENTS = ("value", "value_b64", "file")
_FIELDS = {
    "set": frozenset({"op", "key", "ctype", "ttl", "expect", *_CONTENTS}),
    "del": frozenset({"op", "key", "expect"}),
}


def operations(
    lines: Iterable[bytes], now: datetime, read_file: Callable[[str], bytes]
) -> Iterator[Operation]:
    """The operations that the lines describe, in order. Empty lines are skipped.

    Raises:
        KvUsageError, BadKeyError: a line is invalid; the message begins with its number.
        OSError: from `read_file`.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield _operation(_parsed(line), now, read_file)
        except StargateError as error:
            raise type(error)(f"line {number}: {error.message}") from None


def _parsed(line: bytes) -> dict[str, str]:
    try:
        data = json.loads(line)
    except ValueError:
        raise KvUsageError("no JSON") from None
    if not isinstance(data, dict):
        raise KvUsageError("no JSON object")
    return _checked(data)


def _checked(data: dict[str, Any]) -> dict[str, str]:
    data = {name: value for name, value in data.items() if value is not None}
    known = _FIELDS.get(str(data.get("op")))
    if known is None:
        raise KvUsageError(f'"op" is {data.get("op")!r}; write "set" or "del"')
    if unknown := sorted(data.keys() - known):
        raise KvUsageError(f"unknown field {unknown[0]!r} for {data['op']!r}")
    for name, value in data.items():
        if not isinstance(value, str):
            raise KvUsageError(f"{name!r} has to be a text")
    if "key" not in data:
        raise KvUsageError('"key" is missing')
    return data


def _operation(data: Mapping[str, str], now: datetime, read_file: Callable[[str], bytes]) -> Operation:
    key, expect = check_key(data["key"]), check_expected(data.get("expect"))
    if data["op"] == "del":
        return Drop(key, expect)
    ttl = data.get("ttl")
    expires = None if ttl is None else timestamp(now + timedelta(seconds=seconds(ttl)))
    return Put(key, _content(data, read_file), data.get("ctype", DEFAULT_CTYPE), expires, expect)


def _content(data: Mapping[str, str], read_file: Callable[[str], bytes]) -> bytes:
    given = [name for name in _CONTENTS if name in data]
    if len(given) != 1:
        raise KvUsageError("write one of 'value', 'value_b64' and 'file'")
    text = data[given[0]]
    match given[0]:
        case "value":
            try:
                return text.encode()
            except UnicodeEncodeError:
                raise KvUsageError("'value' is no UTF-8; write 'value_b64'") from None
        case "value_b64":
            try:
                return base64.b64decode(text, validate=True)
            except binascii.Error:
                raise KvUsageError("'value_b64' is no base64") from None
        case _:
            return read_file(text)
