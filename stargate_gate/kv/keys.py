"""Keys, and where they are in the trees of the ledger and of the index. Pure.

The public specification (git-kv v3.1) names the paths, but does not say how a key becomes a file name. Here,
every byte of the key's UTF-8 except `a-z 0-9 _ -` becomes `%XX` with upper-case digits. So two keys never
have the same file on a disk that ignores case, no file name has a meaning for git or an operating system
(`.`, `.git`, `git~1`, `con.txt`), and any URL decoder can read it. Other writers escape fewer characters.
Their files are found, too, and get this spelling when the key is written here.
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
    """Returns `key` if it is valid: UTF-8 without control characters, 1 to 512 bytes.

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
    """Returns `name` if it can be part of a ref on any disk: at most 64 of `a-z 0-9 . _ -`.

    Raises:
        KvUsageError
    """
    if not re.fullmatch(_NAMESPACE, name, re.ASCII):
        raise KvUsageError(f"bad namespace: {name!r}; write a-z, 0-9, '.', '_' and '-', 64 at most")
    return name


def unescape(name: bytes) -> str:
    """The text of a file name in any of the spellings."""
    decoded = re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes([int(match[1], 16)]), name)
    return decoded.decode("utf-8", "surrogateescape")


class Places(NamedTuple):
    """The paths of a key's files: in our spelling first, then in those that other writers may have used."""

    data: list[Path]  # in the ledger: the value
    meta: list[Path]  # in the ledger: type, expiry, creator
    ref: list[Path]  # in the index: the pointer to it
    manifest: list[Path]  # in the ledger: instead of the value, if another writer has split it into chunks


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
    """The first two pairs of characters of `key`. They are shorter if the key is short, and never empty."""
    return key[:PAIR], key[PAIR : 2 * PAIR] or NO_CHARACTERS


def may_hold(folder: bytes, pair: str) -> bool:
    """Whether a folder of the index may contain keys whose prefix has `pair` at this level.

    If the prefix ends within the pair, the folder's name must begin with it; else it must be equal.
    """
    name = unescape(folder)
    return name == pair if len(pair) == PAIR else name.startswith(pair)


def _escape(text: str, unsafe: bytes) -> bytes:
    return re.sub(unsafe, _percent, text.encode())


def _spellings(key: str) -> list[bytes]:
    """The items of _UNSAFE that give different file names for this key. Ours is always the first."""
    text = key.encode()
    if not re.search(_UNSAFE[0], text):
        return [_UNSAFE[0]]
    found: dict[bytes, bytes] = {}
    for unsafe in _UNSAFE:
        found.setdefault(re.sub(unsafe, _percent, text), unsafe)
    return list(found.values())


def _percent(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match[0][0]


def shards(key: str) -> tuple[bytes, bytes]:
    """The first two pairs of hexadecimal digits of SHA-256(key)."""
    digits = hashlib.sha256(key.encode()).hexdigest().encode()
    return digits[:PAIR], digits[PAIR : 2 * PAIR]
