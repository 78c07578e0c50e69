"""What leader and standby say to each other: one JSON object a line, both ways. Pure.

    standby                                  leader
    Join            →                                     who I am
                    ←                        Welcome | Refused
    About           →                                     my address and my settings;
                    ←                        About        both once, and again after a change
                    ←                        Reached      whether I found you there
                    ←                        ListBegin ListPart… ListEnd      everything there is; repeated
                    ←                        Changed | Compare | Deleted      as it happens
                    ←                        Heartbeat                        every heartbeat_s
    Progress        →                                     something has moved
    Applied         →                                     done, on disk
    Checked         →                                     everything of a list is done
                    ←                        Enroll       note this before you join the sync set
    Enrolled        →                                     noted, on disk
    Refilling       →                                     how far I am with what I lack; before Alive
    Alive           →                                     the answer to each Heartbeat

    stargate-whoami NONCE                    ←  Whoami        the leader asks, where the standby is reached
    stargate-refs ID                         ←  SnapshotBegin RefsPart… SnapshotEnd | Gone | Unreadable

A repository is identified by its id. Its name is sent as well, since an operator may change it at any time.

Each line carries the feed's version as "v"; a line without one is of version 3. A newer line is refused.
Join and Welcome also have it as "protocol", so that the other side can answer with the reason.

All but Join and Refused carry the term; messages of another term are ignored. Ref names may be any bytes;
those that are not UTF-8 are sent as lone surrogates, which JSON escapes.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias, TypeVar

from stargate_gate.election.port import Member
from stargate_gate.errors import UsageError
from stargate_gate.formats import FEED
from stargate_gate.replication.wire.about import (
    About,
    Reached,
    Refilling,
    Settings,
    Whoami,
    checked_settings,
)
from stargate_gate.replication.wire.fields import (
    read_digest,
    read_flag,
    read_head,
    read_id,
    read_line,
    read_member,
    read_name,
    read_number,
    read_oid,
    read_ref,
    read_seconds,
    read_word,
)
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.plan import RefChange

PROTOCOL = FEED.number  # raised when an older node could misunderstand
MAX_LINE_BYTES = 1024 * 1024  # a part is a tenth of this; a ref name has 4096 bytes, escaped up to six times
PART_CHARACTERS = 64 * 1024  # of names and ids in one line of a list
MAX_DELTA_CHANGES = 1000  # beyond that a full comparison is as cheap
MAX_DELTA_CHARACTERS = 128 * 1024
MAX_REASON_CHARACTERS = 300  # of why a repository cannot be read: git's own words, cut
MAX_BROKEN_REFS = 100  # refs without a value that one repository may have; more means a broken disk

Delta: TypeAlias = tuple[RefChange, ...]
T = TypeVar("T")


class MessageError(ValueError):
    """What was received is not a message of this protocol."""


@dataclass(frozen=True)
class Listed:
    """One repository of the leader's. `digest` is RefSnapshot's. None: the leader does not know it.

    unreadable  why the leader cannot read it now; id and digest are then what it was when it was read last
                in this term. None: it can; or, without a digest, it was not found under `name` just now: the
                standby asks for it by its id
    """

    name: RepositoryName
    id: str
    digest: str | None
    unreadable: str | None = None


@dataclass(frozen=True)
class Join:
    """A standby introduces itself. `instance` is random for each start of the node."""

    protocol: int
    member: Member
    instance: str


@dataclass(frozen=True)
class Refused:
    """The leader will not feed this standby; `reason` is one line for its operator."""

    reason: str


@dataclass(frozen=True)
class Welcome:
    """The leader of `term` feeds this standby from now on."""

    protocol: int
    term: int
    leader: Member
    heartbeat_s: float


@dataclass(frozen=True)
class ListBegin:
    """The list number `check` begins. It covers every change up to `seq`, and perhaps later ones."""

    term: int
    check: int
    seq: int


@dataclass(frozen=True)
class ListPart:
    """Some of the list."""

    term: int
    check: int
    repositories: tuple[Listed, ...]


@dataclass(frozen=True)
class ListEnd:
    """The list is complete if `count` repositories were in it."""

    term: int
    check: int
    count: int


@dataclass(frozen=True)
class Changed:
    """What exactly has changed in a repository since the last message about it.

    seq    position of the newest change that this tells of; earlier ones of the repository included
    name   what it is called now
    head   what HEAD says now, as in RefSnapshot; "" leaves the standby's as it is
    """

    term: int
    seq: int
    name: RepositoryName
    id: str
    head: str
    delta: Delta


@dataclass(frozen=True)
class Compare:
    """It is new, has another name, or more has changed than one message takes: ask for what it is.

    name  what it was called when this was sent
    """

    term: int
    seq: int
    name: RepositoryName
    id: str


@dataclass(frozen=True)
class Deleted:
    """A user has deleted it: every node puts its copy into the trash."""

    term: int
    seq: int
    name: RepositoryName
    id: str


@dataclass(frozen=True)
class Heartbeat:
    """The leader works, and everything up to `seq` was sent; the whole sync set has all to `replicated`.

    at  the leader's clock, in seconds since 1970, if nothing was left to be sent then; 0 if something was
    """

    term: int
    seq: int
    replicated: int
    at: int = 0


@dataclass(frozen=True)
class Applied:
    """The standby has that change of that repository, and all before it, on disk, under its name."""

    term: int
    seq: int
    id: str


@dataclass(frozen=True)
class Progress:
    """The standby works on that change of that repository, and gets on (see progress.py).

    received  bytes of objects that have come for it so far
    """

    term: int
    seq: int
    id: str
    received: int


@dataclass(frozen=True)
class Checked:
    """The standby has everything of the list `check`, and of what arrived while it was sent."""

    term: int
    check: int


@dataclass(frozen=True)
class Enroll:
    """The standby is about to join the sync set with that incarnation; see election/incarnation.py."""

    term: int
    incarnation: str


@dataclass(frozen=True)
class Enrolled:
    """The standby has that incarnation on disk."""

    term: int
    incarnation: str


@dataclass(frozen=True)
class Alive:
    """The standby works; it has everything up to `position` (0 until it was checked)."""

    term: int
    position: int


@dataclass(frozen=True)
class SnapshotBegin:
    """All refs of one repository follow, as they were at or after `seq`."""

    term: int
    seq: int
    name: RepositoryName
    id: str
    object_format: str
    head: str


@dataclass(frozen=True)
class RefsPart:
    """Some refs: ref → object id."""

    term: int
    refs: Mapping[str, str]


@dataclass(frozen=True)
class SnapshotEnd:
    """The snapshot is complete if `count` refs were in it. `broken`: refs there that have no value."""

    term: int
    count: int
    broken: tuple[str, ...]


@dataclass(frozen=True)
class Gone:
    """The leader has no repository of that id, under whatever name, as of `seq`.

    deleted  a user has deleted it; else it has vanished, or was never there
    """

    term: int
    seq: int
    id: str
    deleted: bool


@dataclass(frozen=True)
class Unreadable:
    """The leader has that repository, and cannot read it: why. As of `seq`.

    name    what it is called now
    last    the digest of what it was when it was read last in this term; None: it was not
    """

    term: int
    seq: int
    name: RepositoryName
    id: str
    reason: str
    last: str | None


News: TypeAlias = Changed | Compare | Deleted
FromLeader: TypeAlias = (
    Welcome | Refused | About | Reached | ListBegin | ListPart | ListEnd | News | Enroll | Heartbeat
)
FromStandby: TypeAlias = Join | About | Applied | Progress | Checked | Refilling | Enrolled | Alive
OfRefs: TypeAlias = SnapshotBegin | RefsPart | SnapshotEnd | Gone | Unreadable
Message: TypeAlias = FromLeader | FromStandby | OfRefs | Whoami

_TYPES: Mapping[str, type[Any]] = {
    "hello": Welcome,
    "refused": Refused,
    "list_begin": ListBegin,
    "list": ListPart,
    "list_end": ListEnd,
    "changed": Changed,
    "compare": Compare,
    "deleted": Deleted,
    "heartbeat": Heartbeat,
    "join": Join,
    "applied": Applied,
    "progress": Progress,
    "checked": Checked,
    "enroll": Enroll,
    "enrolled": Enrolled,
    "alive": Alive,
    "about": About,
    "reached": Reached,
    "refilling": Refilling,
    "whoami": Whoami,
    "snapshot": SnapshotBegin,
    "refs": RefsPart,
    "snapshot_end": SnapshotEnd,
    "gone": Gone,
    "unreadable": Unreadable,
}
_WORDS = {kind: word for word, kind in _TYPES.items()}
_HANDSHAKE = frozenset({Join, Welcome, Refused})  # whose readers answer a newer version with the reason
_FIELDS = {kind: tuple((field.name, field.type) for field in fields(kind)) for kind in _TYPES.values()}


def encode(message: Message) -> bytes:
    """The line for `message`, with its end of line; longer than MAX_LINE_BYTES only by a caller's mistake."""
    value: dict[str, Any] = {"v": PROTOCOL, "type": _WORDS[type(message)]}
    for name, kind in _FIELDS[type(message)]:
        value[name] = _encode(getattr(message, name), kind)
    return json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n"


def decode(line: bytes) -> Message:
    """The message in `line`, every part of it checked.

    Raises:
        MessageError: it is none.
    """
    try:
        value = json.loads(line)
        kind = _TYPES[value["type"]]
        if kind not in _HANDSHAKE:
            _require_readable(value.get("v", PROTOCOL))
        read = {name: _reader(name, of)(value[name]) for name, of in _FIELDS[kind]}
    except MessageError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, UsageError) as error:
        raise MessageError(f"not a message of the feed: {line[:100]!r}: {error!r}") from error
    message: Message = kind(**read)
    return message


def _require_readable(version: Any) -> None:
    if read_number(version) > PROTOCOL:
        raise MessageError(
            f"the other node speaks version {version} of the feed, and this node up to {PROTOCOL}: "
            f"update stargate on this node"
        )


def expect(line: bytes, kind: type[T]) -> T:
    """`decode`, for where only one kind of message may come.

    Raises:
        MessageError: it is another one, or none.
    """
    message = decode(line)
    if not isinstance(message, kind):
        raise out_of_place(message)
    return message


def out_of_place(message: Message) -> MessageError:
    """What to raise for a message that may not come here."""
    return MessageError(f"{_WORDS[type(message)]!r} is out of place here")


def parts(items: Iterable[tuple[str, str]]) -> Iterator[dict[str, str]]:
    """Cut refs into pieces that fit a line each."""
    part: dict[str, str] = {}
    characters = 0
    for ref, oid in items:
        part[ref] = oid
        characters += len(ref) + len(oid)
        if characters > PART_CHARACTERS:
            yield part
            part, characters = {}, 0
    if part:
        yield part


def _encode(value: Any, kind: Any) -> Any:
    if kind is RepositoryName:
        return str(value)
    if kind is Member:
        return [value.name, value.data_dir_id]
    if kind == tuple[Listed, ...]:
        return [[str(one.name), one.id, one.digest, one.unreadable] for one in value]
    if kind == Delta:
        return [[change.ref, change.old, change.new] for change in value]
    return value


def _listed(value: Any) -> tuple[Listed, ...]:
    return tuple(
        Listed(
            read_name(name),
            read_id(identity),
            None if digest is None else read_digest(digest),
            None if unreadable is None else read_line(unreadable),
        )
        for name, identity, digest, unreadable in value
    )


def _maybe_digest(value: Any) -> str | None:
    return None if value is None else read_digest(value)


def _delta(value: Any) -> Delta:
    return tuple(
        RefChange(
            read_ref(ref), None if old is None else read_oid(old), None if new is None else read_oid(new)
        )
        for ref, old, new in value
    )


def _refs(value: Any) -> Mapping[str, str]:
    return {read_ref(ref): read_oid(oid) for ref, oid in value.items()}


def _ref_names(value: Any) -> tuple[str, ...]:
    return tuple(read_ref(ref) for ref in value)


_BY_NAME: Mapping[str, Callable[[Any], str]] = {
    "id": read_id,
    "head": read_head,
    "object_format": read_word,
    "instance": read_word,
    "incarnation": read_id,
    "reason": read_line,
    "problem": read_line,
    "ssh": read_line,
    "nonce": read_word,
}
_BY_TYPE: Mapping[Any, Callable[[Any], Any]] = {
    int: read_number,
    bool: read_flag,
    float: read_seconds,
    Member: read_member,
    RepositoryName: read_name,
    tuple[Listed, ...]: _listed,
    Delta: _delta,
    Mapping[str, str]: _refs,
    tuple[str, ...]: _ref_names,
    Settings: checked_settings,
    str | None: _maybe_digest,
}


def _reader(name: str, of: Any) -> Callable[[Any], Any]:
    """How a field is read: by its name where it is a plain text, else by its type."""
    return _BY_NAME[name] if of is str else _BY_TYPE[of]
