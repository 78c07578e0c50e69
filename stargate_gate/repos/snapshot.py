"""All refs of a repository as one value, with a digest: what nodes compare and send. Pure."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from stargate_gate.repos.names import encode_ref, is_reserved

_DETACHED = re.compile(r"[0-9a-fA-F]{40}(?:[0-9a-fA-F]{24})?")
_SENDABLE_HEAD = re.compile(r"ref: refs/[^\x00-\x20\x7f]{1,4096}|[0-9a-f]{40}(?:[0-9a-f]{24})?")


@dataclass(frozen=True)
class RefSnapshot:
    """All refs of a repository at one moment, except refs/stargate and refs/stargate/*.

    object_format  "sha1" or "sha256"
    head           "ref: refs/heads/x", whether that branch exists or not, or an object id; "" if HEAD has
                   neither form and so cannot be sent to another node
    refs           ref → object id; bytes of a name that are not UTF-8 as surrogates. A symbolic ref has
                   the value of the ref it points to, as clients see it
    broken         refs that exist without a readable value; a copy must not remove them
    symbolic       refs whose values change when other refs do
    whole          no ref has lost its value. A symbolic ref to nothing never had one, and does not count
    """

    object_format: str
    head: str
    refs: Mapping[str, str]
    broken: frozenset[str] = field(default=frozenset(), compare=False)
    symbolic: frozenset[str] = field(default=frozenset(), compare=False)
    whole: bool = field(default=True, compare=False)

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of format, HEAD and refs: equal on two nodes if and only if these are equal."""
        sha = hashlib.sha256(b"%b\0%b\0" % (self.object_format.encode(), encode_ref(self.head)))
        for ref, oid in sorted((encode_ref(ref), oid.encode()) for ref, oid in self.refs.items()):
            sha.update(b"%b %b\0" % (oid, ref))
        return sha.hexdigest()

    @property
    def size(self) -> int:
        """Roughly the bytes that it takes in memory."""
        return 500 + sum(len(ref) + 250 for ref in self.refs)


def sendable_head(head: str) -> str:
    """`head`, as `read_head` returned it, if it can be sent to another node; else "".

    The HEAD file of a repository that was copied in may contain anything, and a reserved ref is the node's
    own.
    """
    sent = head.lower() if _DETACHED.fullmatch(head) else head
    ref = encode_ref(sent.removeprefix("ref: "))
    return sent if _SENDABLE_HEAD.fullmatch(sent) and not is_reserved(ref) else ""
