"""New objects in memory, and the pack that carries them to git in one piece. Pure.

The format is gitformat-pack(5). Ids are needed before anything is written: the ledger's commit names the
index's tree and the other way round.
"""

import hashlib
import zlib

_KINDS = {"commit": 1, "tree": 2, "blob": 3}
_LEVEL = 1  # git packs again when it pushes and when it tidies up


class NewObjects:
    """Objects that are not in the repository yet; each is kept once."""

    def __init__(self, hash_name: str) -> None:
        self.hash_name = hash_name  # "sha1" or "sha256"
        self._objects: dict[bytes, tuple[str, bytes]] = {}

    def __len__(self) -> int:
        return len(self._objects)

    def add(self, kind: str, content: bytes) -> bytes:
        """Keep an object; its oid, as bytes."""
        header = f"{kind} {len(content)}\0".encode()
        oid = hashlib.new(self.hash_name, header + content, usedforsecurity=False).digest()
        self._objects[oid] = (kind, content)
        return oid

    def pack(self) -> bytes:
        """All of them as a pack."""
        parts = [b"PACK" + (2).to_bytes(4, "big") + len(self).to_bytes(4, "big")]
        for kind, content in self._objects.values():
            parts += [_header(_KINDS[kind], len(content)), zlib.compress(content, _LEVEL)]
        body = b"".join(parts)
        return body + hashlib.new(self.hash_name, body, usedforsecurity=False).digest()


def _header(kind: int, size: int) -> bytes:
    """Kind and size in groups of 4 and then 7 bits, the lowest first."""
    head = bytearray([kind << 4 | size & 15])
    size >>= 4
    while size:
        head[-1] |= 0x80
        head.append(size & 0x7F)
        size >>= 7
    return bytes(head)
