"""The formats of meta data, of the index's refs and of the commits with their trailers. Pure."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

from stargate_gate.kv.errors import KvError

DEFAULT_CTYPE = "application/octet-stream"
_TRAILER = re.compile(r"^([A-Za-z-]+): (.*)$", re.MULTILINE)


class Meta(NamedTuple):
    """A value's meta data. Times are RFC 3339 in UTC."""

    ctype: str
    ttl: str | None  # when the value expires, in spite of its name, which the specification gives
    etag: str  # "sha256:" and the digest of the value
    created_by: str
    created_at: str

    def content(self) -> bytes:
        """The file's bytes."""
        return _json(
            {
                "ctype": self.ctype,
                "ttl": self.ttl,
                "etag": self.etag,
                "created_by": self.created_by,
                "created_at": self.created_at,
            }
        )

    @classmethod
    def parsed(cls, content: bytes | None, key: str) -> Self:
        """From a file's bytes. None for a value without the file, from another writer: all is empty then.

        Raises:
            KvError: it is not such a file.
        """
        data = {} if content is None else _parsed(content, f"the meta data of {key!r}")
        return cls(
            ctype=_text(data, "ctype") or DEFAULT_CTYPE,
            ttl=_text(data, "ttl"),
            etag=_text(data, "etag") or "",
            created_by=_text(data, "created_by") or "",
            created_at=_text(data, "created_at") or "",
        )

    def expired(self, now: datetime) -> bool:
        """Whether the value has expired, and so counts as absent.

        Raises:
            KvError: `ttl` is not a time.
        """
        return self.ttl is not None and moment(self.ttl) <= now


class Ref(NamedTuple):
    """A pointer of the index: where a key's value is, or that it was deleted."""

    key: str
    deleted: bool
    ledger_blob: str | None
    size: int
    ctype: str | None

    def content(self) -> bytes:
        """The file's bytes."""
        return _json(
            {
                "v": 1,
                "key": self.key,
                "type": "deleted" if self.deleted else "inline",
                "ledger_blob": self.ledger_blob,
                "size": self.size,
                "ctype": self.ctype,
            }
        )

    @classmethod
    def parsed(cls, content: bytes) -> Self:
        """From a file's bytes.

        Raises:
            KvError: it is not such a file.
        """
        data = _parsed(content, "a ref of the index")
        key, size = data.get("key"), data.get("size")
        if not isinstance(key, str):
            raise KvError("a ref of the index names no key")
        return cls(
            key=key,
            deleted=data.get("type") == "deleted",
            ledger_blob=_text(data, "ledger_blob"),
            size=size if isinstance(size, int) else 0,
            ctype=_text(data, "ctype"),
        )


def commit(*, tree: str, parent: str | None, author: str, committer: str, message: str) -> bytes:
    """A commit object's content; author and committer as git-var(1) gives them."""
    parents = f"parent {parent}\n" if parent is not None else ""
    head = f"tree {tree}\n{parents}author {author}\ncommitter {committer}\n\n"
    return (head + message).encode(errors="surrogateescape")


def message(subject: str, trailers: Mapping[str, str | int]) -> str:
    """A commit message."""
    return "\n".join([subject, "", *(f"{name}: {value}" for name, value in trailers.items()), ""])


class Commit(NamedTuple):
    """The parts of a commit that are needed here."""

    oid: str
    tree: str
    trailers: Mapping[str, str]

    @classmethod
    def parsed(cls, oid: str, content: bytes) -> Self:
        """From an object's content."""
        head, _, text = content.decode("utf-8", "replace").partition("\n\n")
        tree = head.partition("\n")[0].removeprefix("tree ")
        last = text.rstrip("\n").rpartition("\n\n")[2]
        return cls(oid, tree, dict(_TRAILER.findall(last)))


def timestamp(when: datetime) -> str:
    """RFC 3339 with milliseconds, in UTC."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment(text: str) -> datetime:
    """The time of a timestamp. It is in UTC if it names no time zone.

    Raises:
        KvError: it is not a time.
    """
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise KvError(f"no time: {text!r}") from None
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)


def _json(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _parsed(content: bytes, what: str) -> dict[str, Any]:
    try:
        data = json.loads(content)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise KvError(f"{what} is no JSON object")
    return data


def _text(data: Mapping[str, Any], name: str) -> str | None:
    value = data.get(name)
    return value if isinstance(value, str) else None
