"""Keys, and where they are in the trees of the ledger and of the index. Pure.

The public specification (git-kv v3.1) names the paths and is silent on how a key becomes a file name.
Here, every byte of the key's UTF-8 but `a-z 0-9 _ -` is `%XX` with upper-case digits. So two keys never
meet on a disk that ignores case, no name has a meaning for git or for an operating system (`.`, `.git`,
`git~1`, `con.txt`), and any URL decoder reads it. Other writers escape less; what they wrote is found,
too (`spellings`), and moves to our spelling when it is written here.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import TypeAlias

from stargate_gate.kv.errors import BadKeyError, KvUsageError

Path: TypeAlias = tuple[bytes, ...]

MAX_KEY_BYTES = 512
PAIR = 2  # characters
NO_CHARACTERS = "_"  # the second pair of a key of one or two characters: a path has no empty part

_NAMESPACE = re.compile(r"[a-z0-9](?:[a-z0-9_-]|\.(?!\.|lock\b|$)){0,63}", re.ASCII)
_ESCAPED = re.compile(rb"%([0-9A-Fa-f]{2})")
_WORD = "A-Za-z0-9_\\-"
_UNSAFE = (
    re.compile(rb"[^a-z0-9_-]"),  # ours
    re.compile(rf"[^{_WORD}.~]".encode()),  # RFC 3986's unreserved characters: Python, Rust, Java
    re.compile(rf"[^{_WORD}.~!*'()]".encode()),  # JavaScript's encodeURIComponent
    re.compile(rf"[^{_WORD}.~$&+=:@]".encode()),  # Go's url.PathEscape
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
    if not _NAMESPACE.fullmatch(name):
        raise KvUsageError(f"bad namespace: {name!r}; write a-z, 0-9, '.', '_' and '-', 64 at most")
    return name


def escape(text: str) -> bytes:
    """`text` as a file name, as it is written here."""
    return _escape(text, _UNSAFE[0])


def unescape(name: bytes) -> str:
    """What any of the spellings stands for."""
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), name).decode("utf-8", "surrogateescape")


def data_paths(namespace: str, key: str) -> list[Path]:
    """Where the ledger has the value: our spelling first, then what others may have written."""
    return _spelled(lambda unsafe: _ledger_path(namespace, b"data", key, _escape(key, unsafe)))


def meta_paths(namespace: str, key: str) -> list[Path]:
    """Where the ledger has what is known of the value; as `data_paths`."""
    return _spelled(lambda unsafe: _ledger_path(namespace, b"meta", key, _escape(key, unsafe) + b".meta"))


def index_paths(namespace: str, key: str) -> list[Path]:
    """Where the index points to the value; as `data_paths`."""

    def path(unsafe: re.Pattern[bytes]) -> Path:
        first, second = (_escape(pair, unsafe) for pair in pairs(key))
        return (*index_root(namespace), first, second, _escape(key, unsafe) + b".ref")

    return _spelled(path)


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


def _escape(text: str, unsafe: re.Pattern[bytes]) -> bytes:
    return unsafe.sub(lambda match: b"%%%02X" % match[0][0], text.encode())


def _spelled(path: Callable[[re.Pattern[bytes]], Path]) -> list[Path]:
    return list(dict.fromkeys(map(path, _UNSAFE)))


def _ledger_path(namespace: str, part: bytes, key: str, name: bytes) -> Path:
    return (b"kv", namespace.encode(), part, *shards(key), name)


def shards(key: str) -> Iterator[bytes]:
    """The first two pairs of hexadecimal digits of SHA-256(key)."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    yield digest[:2].encode()
    yield digest[2:4].encode()
