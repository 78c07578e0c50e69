"""All refs of a repository as one value, with a digest: what nodes compare and send. Pure."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from stargate_gate.repos.plan import encode_ref


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
