"""Lines of JSON with a checksum, for files that a crash may leave half written. Pure.

Each line is the CRC-32 of the JSON text as 8 hex digits, a space, and the JSON text in ASCII: bytes of ref
names that are not UTF-8 are escaped surrogates.
"""

import json
import re
import zlib
from typing import Any

_LINE = re.compile(rb"([0-9a-f]{8}) (.*)", re.DOTALL)


def checked_line(value: Any) -> bytes:
    """`value` as one line, with its line feed."""
    body = json.dumps(value, separators=(",", ":")).encode("ascii")
    return b"%08x %b\n" % (zlib.crc32(body), body)


def read_checked_line(line: bytes) -> Any:
    """The value of a line, given without its line feed.

    Raises:
        ValueError: it is not what `checked_line` made.
    """
    found = _LINE.fullmatch(line)
    if found is None or int(found[1], 16) != zlib.crc32(found[2]):
        raise ValueError("its checksum is wrong")
    return json.loads(found[2])
