"""Keys, and where they are in the trees of the ledger and of the index. Pure.

The public specification (git-kv v3.1) names the paths and is silent on how a key becomes a file name.
Here, every byte of the key's UTF-8 but `a-z 0-9 _ -` is `%XX` with upper-case digits. So two keys never
meet on a disk that ignores case, no name has a meaning for git or for an operating system (`.`, `.git`,
`git~1`, `con.txt`), and any URL decoder reads it. Other writers escape less; what they wrote is found,
too, and moves to our spelling when it is written here.
"""

import hashlib
import re
import unicodedata
from typing import NamedTuple, TypeAlias

from stargate_gate.kv.errors import BadKeyError, KvUsageError

Path: TypeAlias = tuple[bytes, ...]

MAX_KEY_BYTES = 512
PAIR = 2  # characters
NO_CHARACTERS = "_"  # the second pair of a key of one or two characters: a path has no empty part

_NAMESPACE = r"[a-z0-9](?:[a-z0-9_-]|\.(?!\.|lock\b|$)){0,63}"
_WORD = r"A-Za-z0-9_\-"
_UNSAFE = (
    rb"[^a-z0-9_-]",  # ours
    rf"[^{_WORD}.~]".encode(),  # RFC 3986's unreserved characters: Python, Rust, Java
    rf"[^{_WORD}.~!*'()]".encode(),  # JavaScript's encodeURIComponent
    rf"[^{_WORD}.~$&+=:@]".encode(),  # Go's url.PathEscape
)


def check_key(key: str) -> str:
    """`key`, if it is one: UTF-8 without control characters, 1 to 512 bytes.

    Raises:
        BadKeyError
    """
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise BadKeyError(f"bad key: {key.encode(errors='surrogateescape')!r} is not UTF-8") from None
    if not 1 <= size <= MAX_KEY_BYTES:
        raise BadKeyError(f"bad key: a key has 1 to {MAX_KEY_BYTES} bytes, this one has {size}")
    if any(unicodedata.category(character) == "Cc" for character in key):
        raise BadKeyError(f"bad key: {key!r} has a control character")
    return key


def check_namespace(name: str) -> str:
    """`name`, if it can be part of a ref on any disk: `a-z 0-9 . _ -`, at most 64 of them.

    Raises:
        KvUsageError
    """
    if not re.fullmatch(_NAMESPACE, name, re.ASCII):
        raise KvUsageError(f"bad namespace: {name!r}; write a-z, 0-9, '.', '_' and '-', 64 at most")
    return name


def escape(text: str) -> bytes:
    """`text` as a file name, as it is written here."""
    return _escape(text, _UNSAFE[0])


def unescape(name: bytes) -> str:
    """What any of the spellings stands for."""
    decoded = re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes([int(match[1], 16)]), name)
    return decoded.decode("utf-8", "surrogateescape")


class Places(NamedTuple):
    """Where a key's three files are: our spelling first, then what others may have written."""

    data: list[Path]  # in the ledger: the value
    meta: list[Path]  # in the ledger: what is known of it
    ref: list[Path]  # in the index: the pointer to it
    manifest: list[Path]  # in the ledger: in the place of a value that another writer has chunked


def places(namespace: str, key: str) -> Places:
    """The places of a key."""
    root = (b"kv", namespace.encode())
    first_pair, second_pair = pairs(key)
    first_shard, second_shard = shards(key)
    found = Places([], [], [], [])
    for unsafe in _spellings(key):
        name = _escape(key, unsafe)
        found.data.append((*root, b"data", first_shard, second_shard, name))
        found.manifest.append((*root, b"data", first_shard, second_shard, name + b".manifest.json"))
        found.meta.append((*root, b"meta", first_shard, second_shard, name + b".meta"))
        folders = (_escape(first_pair, unsafe), _escape(second_pair, unsafe))
        found.ref.append((*root, b"index", *folders, name + b".ref"))
    return found


def index_root(namespace: str) -> Path:
    """The folder of the index."""
    return (b"kv", namespace.encode(), b"index")


def pairs(key: str) -> tuple[str, str]:
    """The first two pairs of characters of `key`: shorter where it is short, and never empty."""
    return key[:PAIR], key[PAIR : 2 * PAIR] or NO_CHARACTERS


def may_hold(folder: bytes, pair: str) -> bool:
    """Whether a folder of the index may hold keys whose prefix has `pair` in that place.

    A pair of two characters is that folder's name; of a shorter one, the name is not known yet.
    """
    name = unescape(folder)
    return name == pair if len(pair) == PAIR else name.startswith(pair)


def _escape(text: str, unsafe: bytes) -> bytes:
    return re.sub(unsafe, _percent, text.encode())


def _spellings(key: str) -> list[bytes]:
    """Those of _UNSAFE that make a difference for this key."""
    text = key.encode()
    if not re.search(_UNSAFE[0], text):
        return [_UNSAFE[0]]
    return list({re.sub(unsafe, _percent, text): unsafe for unsafe in reversed(_UNSAFE)}.values())[::-1]


def _percent(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match[0][0]


def shards(key: str) -> tuple[bytes, bytes]:
    """The first two pairs of hexadecimal digits of SHA-256(key)."""
    digits = hashlib.sha256(key.encode()).hexdigest().encode()
    return digits[:PAIR], digits[PAIR : 2 * PAIR]
