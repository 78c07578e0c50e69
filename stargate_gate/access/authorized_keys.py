"""Whose key may do what: the content of an authorized_keys file. Pure; key_file.py watches the file.

It is read line by line: a broken line is reported by its number, and all others count. The format is that of
sshd(8); which options have an effect is in key_options.py.
"""

import base64
import binascii
import hashlib
import math
import struct
import sys
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime

from stargate_gate.access.identity import MAX_USER_LENGTH, Identity
from stargate_gate.access.key_blocks import UTF8_BOM, Block, block_at
from stargate_gate.access.key_options import KeyOptions, parse_options, split_options
from stargate_gate.printable import printable
from stargate_gate.status import ExpiringKey

MIN_RSA_BITS = 2048  # what NIST SP 800-131A still allows
KEY_TYPE_PREFIXES = ("ssh-", "ecdsa-", "sk-")  # no option begins like these
MAX_FILE_BYTES = 16 * 1024 * 1024  # some 150 000 keys
DIGEST_DIGITS = 12  # enough to tell files apart, and short enough for people to compare
MAX_REASONS = 3  # lines with the same key that a log line explains
MAX_LINE_BYTES = 16 * 1024  # a 16384 bit RSA key with generous options is a quarter of this
MAX_PROBLEMS = 50  # lines that are described one by one; more would not fit on a status page
CHUNK_LINES = 100  # between two calls of `pause`: about a millisecond of work

NEVER = ExpiringKey("", 0, -math.inf)
NO_OPTIONS = KeyOptions()  # shared by all lines without options, to save memory


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One usable line. `blob` is the public key as RFC 4253, section 6.6, encodes it."""

    line: int
    key_type: str
    blob: bytes
    comment: str
    options: KeyOptions

    @property
    def user(self) -> str:
        """Who uses the key."""
        return printable(self.options.user or self.comment or fingerprint_of(self.blob), MAX_USER_LENGTH)

    def allows(self, source: str, now: datetime) -> bool:
        """Whether `from=` and `expiry-time=` let a client at `source` use this key at `now` (aware)."""
        sources, valid_before = self.options.sources, self.options.valid_before
        return (sources is None or sources.allow(source)) and (valid_before is None or now <= valid_before)

    def why_not(self, source: str, now: datetime) -> str:
        """Why `allows` says no, in a few words."""
        if self.options.valid_before is not None and now > self.options.valid_before:
            return f"expired at {self.options.valid_before:%Y-%m-%d %H:%M} UTC"
        return f"from= does not match {source}"

    def identity(self, source: str) -> Identity:
        """The identity of a client that has proved this key."""
        return Identity(self.user, self.options.access, fingerprint_of(self.blob), source)


@dataclass(frozen=True)
class AuthorizedKeys:
    """A whole file.

    problems  texts for operators, each with its line number
    lines     how many lines are neither blank nor a comment, usable or not
    digest    a text for people: the same for two files that let in the same keys with the same options.
              Comments count only where they name the user. It reveals nothing of the keys
    last_keys  of each user whose keys all have an expiry-time, the one that ends last; sorted by time
    """

    entries: tuple[KeyEntry, ...] = ()
    problems: tuple[str, ...] = ()
    lines: int = 0
    _by_blob: Mapping[bytes, tuple[KeyEntry, ...]] = field(default_factory=dict, repr=False, compare=False)
    digest: str = field(default="0 keys", compare=False)
    last_keys: tuple[ExpiringKey, ...] = field(default=(), repr=False, compare=False)

    def expiring(self, before: float) -> tuple[ExpiringKey, ...]:
        """Users whose last key ends before that time, in seconds since 1970; who is first comes first."""
        return self.last_keys[: bisect_left(self.last_keys, before, key=lambda one: one.at)]

    def find(self, blob: bytes, source: str, now: datetime) -> KeyEntry | None:
        """The first line with this key that `source` may use at `now`, as in sshd."""
        return next((entry for entry in self._by_blob.get(blob, ()) if entry.allows(source, now)), None)

    def why_not(self, blob: bytes, source: str, now: datetime) -> str:
        """Why `find` returns None: a few words for the log, to follow the key's fingerprint."""
        entries = self._by_blob.get(blob, ())
        if not entries:
            return "is not in authorized_keys"
        return "; ".join(
            f"line {entry.line}: {entry.why_not(source, now)}" for entry in entries[:MAX_REASONS]
        )


def parse_authorized_keys(content: bytes, pause: Callable[[], None] = lambda: None) -> AuthorizedKeys:
    """Read a whole file; never raises. Empty is fine: then nobody may log in.

    `pause` is called after every `CHUNK_LINES` lines, so that a thread that parses a large file can let other
    threads run. Check the content with `key_blocks.problem_of_whole` first.
    """
    reader = _Lines()
    for number, raw in enumerate(content.removeprefix(UTF8_BOM).split(b"\n"), start=1):
        reader.take(raw.strip(b" \t\r"), number)
        if number % CHUNK_LINES == 0:
            pause()
    return reader.finished()


class _Lines:
    """Collects a file line by line."""

    def __init__(self) -> None:
        self._by_blob: dict[bytes, tuple[KeyEntry, ...]] = {}
        self._entries: list[KeyEntry] = []
        self._known: set[int] = set()
        self._problems: list[str] = []
        self._not_described = 0
        self._lines = 0
        self._block: Block | None = None

    def take(self, line: bytes, number: int) -> None:
        """The next line, stripped of blanks."""
        if self._block is not None and self._inside(line):
            return
        if not line or line.startswith(b"#"):
            return
        self._lines += 1
        self._block = block_at(line)
        if self._block is not None:
            self._report(number, f"{self._block.text}; these lines are ignored")
            return
        try:
            self._add(parse_line(line, number))
        except ValueError as error:
            self._report(number, f"{printable(str(error), 200)}; this line is ignored")

    def _inside(self, line: bytes) -> bool:
        """Whether `line` belongs to the block that has begun. Without an end it ends before the next key."""
        assert self._block is not None  # noqa: S101 # checked by `take`
        if self._block.ends.match(line):
            self._block = None
            return True
        try:
            parse_line(line, 0)
        except ValueError:
            return True
        self._block = None
        return False

    def _add(self, entry: KeyEntry) -> None:
        earlier = self._by_blob.get(entry.blob, ())
        if earlier and earlier[0].options.sources is None and earlier[0].options.valid_before is None:
            self._report(entry.line, f"the same key stands in line {earlier[0].line}, which wins")
        self._by_blob[entry.blob] = (*earlier, entry)
        self._entries.append(entry)
        self._known.add(digest_of_entry(entry))

    def _report(self, number: int, text: str) -> None:
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(f"line {number}: {text}")
        else:
            self._not_described += 1

    def finished(self) -> AuthorizedKeys:
        """The file."""
        if self._not_described:
            self._problems.append(f"{self._not_described} more lines have problems")
        digest = digest_of(self._known)
        return AuthorizedKeys(
            tuple(self._entries),
            tuple(self._problems),
            self._lines,
            self._by_blob,
            digest,
            last_keys_of(self._entries),
        )


def last_keys_of(entries: Sequence[KeyEntry]) -> tuple[ExpiringKey, ...]:
    """Of each user whose keys all end some time, the one that ends last; sorted by that time."""
    if all(entry.options.valid_before is None for entry in entries):
        return ()  # as in most files
    last: dict[str, ExpiringKey | None] = {}
    for entry in entries:
        user = entry.user
        if entry.options.valid_before is None:
            last[user] = None
        elif (before := last.get(user, NEVER)) is not None:
            at = entry.options.valid_before.timestamp()
            last[user] = ExpiringKey(user, entry.line, at) if at > before.at else before
    return tuple(sorted((one for one in last.values() if one is not None), key=lambda one: one.at))


def digest_of_entry(entry: KeyEntry) -> int:
    """A hash of the key, its options, and its comment if that names the user."""
    user = "" if entry.options.user else entry.comment
    text = f"{entry.blob.hex()} {entry.options} {user}"
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogateescape")).digest())


def digest_of(known: AbstractSet[int]) -> str:
    """The digest of a file, from the hashes of its entries. Their order does not matter."""
    if not known:
        return "0 keys"
    whole = hashlib.sha256(str(sum(known)).encode()).hexdigest()[:DIGEST_DIGITS]
    return f"{len(known)} key{'' if len(known) == 1 else 's'}, digest {whole}"


def parse_line(raw: bytes, number: int) -> KeyEntry:
    """One line that is neither blank nor a comment.

    The key is read before the options, and no message quotes a line without a public key: see key_blocks.py.

    Raises:
        ValueError: it cannot be used; the message says why.
    """
    if len(raw) > MAX_LINE_BYTES:
        raise ValueError(f"it is longer than {MAX_LINE_BYTES} bytes")
    line = raw.decode("utf-8", "replace")
    head = ""
    if not line.startswith(KEY_TYPE_PREFIXES):
        head, line = split_options(line)
    key_type, encoded, comment, *_ = [*line.split(None, 2), "", "", ""]
    if key_type not in KEY_TYPES:
        raise ValueError(f"no key of a known type is there ({', '.join(KEY_TYPES)})")
    blob = parse_public_key(key_type, encoded)
    options = parse_options(head) if head else NO_OPTIONS
    return KeyEntry(number, sys.intern(key_type), blob, comment.strip(), options)


def fingerprint_of(blob: bytes) -> str:
    """SHA-256 of the public key, as ssh-keygen -l prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def parse_public_key(key_type: str, encoded: str) -> bytes:
    """The blob of a key; checks that it holds one key of `key_type`.

    Raises:
        ValueError: it is damaged or too weak.
    """
    try:
        blob = base64.b64decode(encoded, validate=True)
        fields = _fields(blob)
    except (binascii.Error, ValueError) as error:
        raise ValueError("the key is damaged: it is no base64 of a public key") from error
    if not fields or fields[0] != key_type.encode():
        raise ValueError(f"the key is damaged: it does not hold a key of type {key_type}")
    if not KEY_TYPES[key_type](fields[1:]):
        raise ValueError(f"the key is damaged or too weak (RSA keys need {MIN_RSA_BITS} bits)")
    return blob


def _fields(blob: bytes) -> list[bytes]:
    """The strings and mpints of RFC 4251, section 5, that `blob` is a sequence of."""
    fields: list[bytes] = []
    at = 0
    while at < len(blob):
        if at + 4 > len(blob):
            raise ValueError("cut off")
        (length,) = struct.unpack_from(">I", blob, at)
        if at + 4 + length > len(blob):
            raise ValueError("cut off")
        fields.append(blob[at + 4 : at + 4 + length])
        at += 4 + length
    return fields


def _is_ed25519(fields: Sequence[bytes], extra: int = 0) -> bool:
    return len(fields) == 1 + extra and len(fields[0]) == 32  # noqa: PLR2004 # bytes of a key: RFC 8709, section 4


def _is_ecdsa(fields: Sequence[bytes], curve: bytes, coordinate: int, extra: int = 0) -> bool:
    return (  # an uncompressed point, RFC 5656, section 3.1
        len(fields) == 2 + extra
        and fields[0] == curve
        and len(fields[1]) == 1 + 2 * coordinate
        and fields[1][0] == 4  # noqa: PLR2004 # marks an uncompressed point
    )


def _is_rsa(fields: Sequence[bytes]) -> bool:
    return len(fields) == 2 and int.from_bytes(fields[1], "big").bit_length() >= MIN_RSA_BITS  # noqa: PLR2004 # exponent and modulus


KEY_TYPES: Mapping[str, Callable[[Sequence[bytes]], bool]] = {
    "ssh-ed25519": _is_ed25519,
    "ecdsa-sha2-nistp256": lambda fields: _is_ecdsa(fields, b"nistp256", 32),
    "ecdsa-sha2-nistp384": lambda fields: _is_ecdsa(fields, b"nistp384", 48),
    "ecdsa-sha2-nistp521": lambda fields: _is_ecdsa(fields, b"nistp521", 66),
    "ssh-rsa": _is_rsa,
    "sk-ssh-ed25519@openssh.com": lambda fields: _is_ed25519(fields, extra=1),
    "sk-ecdsa-sha2-nistp256@openssh.com": lambda fields: _is_ecdsa(fields, b"nistp256", 32, extra=1),
}
