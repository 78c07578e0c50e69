"""New objects in memory, and the pack in which git gets all of them at once. Pure.

The format is gitformat-pack(5). Ids are needed before anything is written, because the commits of ledger and
index name each other's trees.
"""

import hashlib
import zlib

_KINDS = {"commit": 1, "tree": 2, "blob": 3}
_LEVEL = 1  # low: git compresses again when it repacks
_STORED_BYTES = 100  # smaller objects are mostly ids, which do not compress


class NewObjects:
    """Objects that are not in the repository yet; each is kept once."""

    def __init__(self, hash_name: str) -> None:
        self._hash = {"sha1": hashlib.sha1, "sha256": hashlib.sha256}[hash_name]
        self._objects: dict[bytes, tuple[str, bytes]] = {}

    def __len__(self) -> int:
        return len(self._objects)

    def add(self, kind: str, content: bytes) -> bytes:
        """Add an object; returns its oid, as bytes."""
        header = f"{kind} {len(content)}\0".encode()
        oid = self._hash(header + content, usedforsecurity=False).digest()
        self._objects[oid] = (kind, content)
        return oid

    def pack(self) -> bytes:
        """All of them as a pack."""
        parts = [b"PACK" + (2).to_bytes(4, "big") + len(self).to_bytes(4, "big")]
        for kind, content in self._objects.values():
            parts += [_header(_KINDS[kind], len(content)), _deflated(content)]
        body = b"".join(parts)
        return body + self._hash(body, usedforsecurity=False).digest()


def _deflated(content: bytes) -> bytes:
    """The content as a zlib stream; a small one in a single stored block (RFC 1951, section 3.2.4)."""
    size = len(content)
    if size >= _STORED_BYTES:
        return zlib.compress(content, _LEVEL)
    return b"\x78\x01\x01%b%b%b%b" % (
        size.to_bytes(2, "little"),
        (size ^ 0xFFFF).to_bytes(2, "little"),
        content,
        zlib.adler32(content).to_bytes(4, "big"),
    )


def _header(kind: int, size: int) -> bytes:
    """Kind and size in groups of 4 and then 7 bits, the lowest first."""
    head = bytearray([kind << 4 | size & 15])
    size >>= 4
    while size:
        head[-1] |= 0x80
        head.append(size & 0x7F)
        size >>= 7
    return bytes(head)
