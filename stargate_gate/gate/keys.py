"""Whose key may do what: an authorized_keys file, read line by line. Pure; keyfile.py watches the file.

One broken line costs that line and nothing else, and is reported by its number. sshd(8) tells the
format; what of it is honoured is in keyoptions.py.
"""

import base64
import binascii
import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from stargate_gate.gate.identity import Identity, printable
from stargate_gate.gate.keyoptions import KeyOptions, parse_options, split_options

MIN_RSA_BITS = 2048  # what NIST SP 800-131A still allows
KEY_TYPE_PREFIXES = ("ssh-", "ecdsa-", "sk-")  # no option begins like these
MAX_FILE_BYTES = 16 * 1024 * 1024  # some 150 000 keys
DIGEST_DIGITS = 12  # enough to tell files apart, and to be compared by eye
MAX_LINE_BYTES = 16 * 1024  # a 16384 bit RSA key with generous options is a quarter of this


@dataclass(frozen=True)
class KeyEntry:
    """One usable line. `blob` is the public key as RFC 4253, section 6.6, encodes it."""

    line: int
    key_type: str
    blob: bytes
    comment: str
    options: KeyOptions

    def allows(self, source: str, now: datetime) -> bool:
        """Whether `from=` and `expiry-time=` let a client at `source` use this key at `now` (aware)."""
        sources, valid_before = self.options.sources, self.options.valid_before
        return (sources is None or sources.allow(source)) and (valid_before is None or now <= valid_before)

    def identity(self, source: str) -> Identity:
        """Who a client is that has proved to hold this key."""
        fingerprint = fingerprint_of(self.blob)
        user = printable(self.options.user or self.comment or fingerprint)
        return Identity(user, self.options.access, fingerprint, source)


@dataclass(frozen=True)
class AuthorizedKeys:
    """A whole file. `problems` are finished lines for operators, each with its line number.

    digest  the same for two files that let in the same keys with the same options, in words for people;
            comments count only where they name the user. Of the keys nothing can be told from it
    """

    entries: tuple[KeyEntry, ...] = ()
    problems: tuple[str, ...] = ()
    _by_blob: Mapping[bytes, Sequence[KeyEntry]] = field(default_factory=dict, repr=False, compare=False)
    digest: str = field(default="0 keys", compare=False)

    def find(self, blob: bytes, source: str, now: datetime) -> KeyEntry | None:
        """The first line with this key that `source` may use at `now`, as in sshd."""
        return next((entry for entry in self._by_blob.get(blob, ()) if entry.allows(source, now)), None)


def parse_authorized_keys(content: bytes) -> AuthorizedKeys:
    """Read a whole file; never raises. Empty is fine: then nobody may log in."""
    by_blob: dict[bytes, list[KeyEntry]] = {}
    entries: list[KeyEntry] = []
    problems: list[str] = []
    for number, raw in enumerate(content.split(b"\n"), start=1):
        line = raw.strip(b" \t\r")
        if not line or line.startswith(b"#"):
            continue
        try:
            entry = parse_line(line, number)
        except ValueError as error:
            problems.append(f"line {number}: {printable(str(error), 200)}; this line is ignored")
            continue
        earlier = by_blob.setdefault(entry.blob, [])
        if earlier and earlier[0].options.sources is None and earlier[0].options.valid_before is None:
            problems.append(f"line {number}: the same key stands in line {earlier[0].line}, which wins")
        earlier.append(entry)
        entries.append(entry)
    return AuthorizedKeys(tuple(entries), tuple(problems), by_blob, _digest(entries))


def _digest(entries: Sequence[KeyEntry]) -> str:
    """Of each entry a digest, and of all of them the sum: the order does not matter, and no step is long."""
    known: set[int] = set()
    for entry in entries:
        user = "" if entry.options.user else entry.comment
        text = f"{entry.blob.hex()} {entry.options} {user}"
        known.add(int.from_bytes(hashlib.sha256(text.encode(errors="surrogateescape")).digest()))
    if not known:
        return "0 keys"
    whole = hashlib.sha256(str(sum(known)).encode()).hexdigest()[:DIGEST_DIGITS]
    return f"{len(known)} key{'' if len(known) == 1 else 's'}, digest {whole}"


def parse_line(raw: bytes, number: int) -> KeyEntry:
    """One line that is neither blank nor a comment.

    Raises:
        ValueError: it cannot be used; the message says why.
    """
    if len(raw) > MAX_LINE_BYTES:
        raise ValueError(f"it is longer than {MAX_LINE_BYTES} bytes")
    line = raw.decode("utf-8", "replace")
    options = KeyOptions()
    if not line.startswith(KEY_TYPE_PREFIXES):
        head, line = split_options(line)
        options = parse_options(head)
    key_type, encoded, comment, *_ = [*line.split(None, 2), "", "", ""]
    if key_type not in KEY_TYPES:
        raise ValueError(f"no key of a known type is there ({', '.join(KEY_TYPES)})")
    return KeyEntry(number, key_type, parse_public_key(key_type, encoded), comment.strip(), options)


def fingerprint_of(blob: bytes) -> str:
    """SHA-256 of the public key, as ssh-keygen -l prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def parse_public_key(key_type: str, encoded: str) -> bytes:
    """The key's blob, if it really holds one key of `key_type`.

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
    return len(fields) == 1 + extra and len(fields[0]) == 32  # noqa: PLR2004  # RFC 8709, section 4


def _is_ecdsa(fields: Sequence[bytes], curve: bytes, coordinate: int, extra: int = 0) -> bool:
    return (  # an uncompressed point, RFC 5656, section 3.1
        len(fields) == 2 + extra
        and fields[0] == curve
        and len(fields[1]) == 1 + 2 * coordinate
        and fields[1][0] == 4  # noqa: PLR2004
    )


def _is_rsa(fields: Sequence[bytes]) -> bool:
    return len(fields) == 2 and int.from_bytes(fields[1], "big").bit_length() >= MIN_RSA_BITS  # noqa: PLR2004


KEY_TYPES: Mapping[str, Callable[[Sequence[bytes]], bool]] = {
    "ssh-ed25519": _is_ed25519,
    "ecdsa-sha2-nistp256": lambda fields: _is_ecdsa(fields, b"nistp256", 32),
    "ecdsa-sha2-nistp384": lambda fields: _is_ecdsa(fields, b"nistp384", 48),
    "ecdsa-sha2-nistp521": lambda fields: _is_ecdsa(fields, b"nistp521", 66),
    "ssh-rsa": _is_rsa,
    "sk-ssh-ed25519@openssh.com": lambda fields: _is_ed25519(fields, extra=1),
    "sk-ecdsa-sha2-nistp256@openssh.com": lambda fields: _is_ecdsa(fields, b"nistp256", 32, extra=1),
}
