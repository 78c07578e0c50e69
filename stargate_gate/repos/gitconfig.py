"""Which keys a served repository's config may have. Pure; see git-config(1).

The config of a repository that was copied in can name programs that git would start, folders outside, and
other files to read, and each release of git adds such keys. So there is a list of allowed keys: how objects
are stored, and what may be pushed and fetched. All other keys are dropped; an operator finds them in
config.before-stargate.
"""

import hmac
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stargate_gate.formats import CONFIG_SEAL

# Lower case, as `git config --list` prints sections and keys; a subsection is any bytes.
_ALLOWED = re.compile(
    rb"""
    # how objects and refs are stored
      core\.(repositoryformatversion | filemode | ignorecase | precomposeunicode | symlinks
             | compression | loosecompression | bigfilethreshold | packedgitwindowsize | packedgitlimit
             | deltabasecachelimit | logallrefupdates | commitgraph | multipackindex)
    | extensions\.(objectformat | noop | noop-v1 | preciousobjects)
    | pack\.(compression | depth | window | windowmemory | threads | deltacachesize | deltacachelimit
             | packsizelimit | usebitmaps | writebitmaphashcache | writereverseindex | allowpackreuse
             | usesparse | island | islandcore)
    | repack\.(usedeltabaseoffset | usedeltaislands | packkeptobjects | writebitmaps)
    # what may be pushed
    | receive\.(denydeletes | denynonfastforwards | denydeletecurrent | denycurrentbranch | fsckobjects
                | maxinputsize | unpacklimit | hiderefs | keepalive | advertiseatomic | shallowupdate)
    | receive\.fsck\.(?!skiplist)[a-z0-9]+
    # what may be fetched
    | transfer\.(hiderefs | unpacklimit)
    | uploadpack\.(hiderefs | allowfilter | allowtipsha1inwant | allowreachablesha1inwant
                   | allowanysha1inwant | allowrefinwant | keepalive)
    | uploadpackfilter\.(allow | .*\.allow | tree\.maxdepth)
    | lsrefs\.unborn
    | tar\.umask
    # what others show of it, and what an operator tells this node
    | gitweb\.(owner | description | category | url)
    | stargate\.setoneverynode
    """,
    re.VERBOSE | re.DOTALL,
)
# Configs are not replicated. So these keys, if the other nodes lack them, change for users at a failover.
_POLICY = re.compile(rb"(receive|transfer|uploadpack|uploadpackfilter)\..*", re.DOTALL)
# The operator says with this key that all nodes have the same keys.
_SAME_EVERYWHERE = "stargate.setoneverynode"

_FSCK = b"receive.fsck."
_FSCK_WORDS = frozenset({b"ignore", b"warn", b"error"})
_FORMAT_VERSION = b"core.repositoryformatversion"
_OBJECT_FORMATS = frozenset({b"sha1", b"sha256"})
# Not needed: the first one (files) is the default, the others are for working copies.
_NEEDLESS_EXTENSIONS = frozenset(
    {
        b"extensions.refstorage",
        b"extensions.worktreeconfig",
        b"extensions.relativeworktrees",
        b"extensions.submodulepathconfig",
    }
)
_TRUE = frozenset({None, b"true", b"yes", b"on", b"1"})
_FALSE = frozenset({b"false", b"no", b"off", b"0", b""})

WHOLE_COPY = "make a whole copy (git clone --mirror) and copy that in"
PARTIAL_CLONE = f"it is a partial clone, and lacks objects: {WHOLE_COPY}"

_PLAIN = re.compile(rb"[A-Za-z0-9/_.+-]+")
# A change of the rules raises this number; then every repository is adopted again.
_SEAL = b"# checked by stargate, %d: " % CONFIG_SEAL.number


@dataclass(frozen=True)
class ConfigEntry:
    """One line of `git config --list -z`; `value` is None for a key alone, which means true."""

    key: bytes
    value: bytes | None


def parse_list(output: bytes) -> list[ConfigEntry]:
    """The output of `git config --list -z`, in order."""
    entries = []
    for item in output.split(b"\0")[:-1]:
        key, newline, value = item.partition(b"\n")
        entries.append(ConfigEntry(key, value if newline else None))
    return entries


def is_unwanted(entry: ConfigEntry) -> bool:
    """Whether a served repository's config must not have this entry."""
    if _ALLOWED.fullmatch(entry.key) is None:
        return True
    return entry.key.startswith(_FSCK) and entry.value not in _FSCK_WORDS


def unsupported(entries: Sequence[ConfigEntry]) -> str | None:
    """Why a repository with this config cannot be served, and what to do; None if it can."""
    for entry in entries:
        if (problem := _problem_of(entry)) is not None:
            return problem
    if any(e.key == b"extensions.objectformat" for e in entries) and not any(
        e == ConfigEntry(_FORMAT_VERSION, b"1") for e in entries
    ):
        return "its core.repositoryformatversion is 0, and has to be 1 with extensions.objectformat: set it"
    return None


def _problem_of(entry: ConfigEntry) -> str | None:
    key, value = entry.key, entry.value or b""
    name = key.decode("utf-8", "replace")
    if key == _FORMAT_VERSION and value not in {b"0", b"1"}:
        return f"its {name} is not 0 or 1: {WHOLE_COPY}"
    if key == b"extensions.partialclone" or (_is_promisor(key) and entry.value not in _FALSE):
        return f"its config has {name}: {PARTIAL_CLONE}"
    return _problem_of_extension(key, value, name) if key.startswith(b"extensions.") else None


def _problem_of_extension(key: bytes, value: bytes, name: str) -> str | None:
    if key == b"extensions.refstorage" and value not in {b"files", b""}:
        return "its refs are not stored as files: git refs migrate --ref-format=files changes that"
    if key == b"extensions.objectformat" and value.lower() not in _OBJECT_FORMATS:
        return f"its config has {name} of another value than sha1 and sha256: {WHOLE_COPY}"
    if key not in _NEEDLESS_EXTENSIONS and not _ALLOWED.fullmatch(key):
        return f"its config has {name}, which is not known here: {WHOLE_COPY}"
    return None


def _is_promisor(key: bytes) -> bool:
    return key.startswith(b"remote.") and key.endswith(b".promisor")


def adopted(entries: Sequence[ConfigEntry], hooks: Path) -> list[ConfigEntry]:
    """The entries after adoption: only allowed ones, a bare repository, our hooks."""
    kept = [entry for entry in entries if not is_unwanted(entry)]
    return [*kept, *_ours(hooks)]


def fresh(object_format: str, hooks: Path) -> list[ConfigEntry]:
    """The entries of a new repository."""
    if object_format == "sha1":
        return [ConfigEntry(b"core.repositoryformatversion", b"0"), *_ours(hooks)]
    return [
        ConfigEntry(b"core.repositoryformatversion", b"1"),
        ConfigEntry(b"extensions.objectformat", object_format.encode("ascii")),
        *_ours(hooks),
    ]


def is_dropped(entry: ConfigEntry) -> bool:
    """Whether adoption really drops this entry; it does not if it writes the same key itself."""
    return (
        is_unwanted(entry) and entry != ConfigEntry(b"core.bare", b"true") and entry.key != b"core.hookspath"
    )


def seal(entries: Sequence[ConfigEntry], key: bytes) -> bytes:
    """A config file with a checksum in a comment at its end, which shows any later change.

    key  a secret of this data_dir; so nobody else can make a config that seems checked
    """
    content = encode(entries)
    return content + _SEAL + _checksum(content, key) + b"\n"


def is_sealed(content: bytes, hooks: Path, key: bytes) -> bool:
    """Whether `content` is as `seal` made it, with these hooks."""
    body, mark, checksum = content.rpartition(_SEAL)
    return (
        bool(mark)
        and hmac.compare_digest(checksum.strip(), _checksum(body, key))
        and body.endswith(encode(_ours(hooks)).partition(b"\n")[2])
    )


def _checksum(content: bytes, key: bytes) -> bytes:
    return hmac.new(key, content, "sha256").hexdigest().encode()


def local_policy(sealed: bytes) -> tuple[str, ...]:
    """The keys in a sealed config that may be missing on other nodes, so that a failover changes them.

    Empty if the operator says with `stargate.setOnEveryNode` that all nodes have the same keys.
    """
    keys = {entry.decode("utf-8", "replace"): value for entry, value in _entries(sealed)}
    if keys.get(_SAME_EVERYWHERE, b"false") in _TRUE:
        return ()
    return tuple(sorted(key for key in keys if _POLICY.fullmatch(key.encode())))


def _entries(encoded: bytes) -> Iterator[tuple[bytes, bytes | None]]:
    """Keys and values as `encode` wrote them, one a line; quotes of values are not removed."""
    section = b""
    for line in encoded.split(b"\n"):
        if line.startswith(b"["):
            name, blank, subsection = line[1:-1].partition(b' "')
            section = name + b"." + subsection[:-1] if blank else name
        elif line.startswith(b"\t"):
            key, equals, value = line[1:].partition(b" = ")
            yield section + b"." + key, value if equals else None


def _ours(hooks: Path) -> list[ConfigEntry]:
    return [ConfigEntry(b"core.bare", b"true"), ConfigEntry(b"core.hookspath", bytes(hooks))]


def encode(entries: Sequence[ConfigEntry]) -> bytes:
    """A config file with exactly these entries, in this order."""
    lines = []
    current = b""
    for entry in entries:
        section, _, key = entry.key.rpartition(b".")
        if section != current:
            lines.append(_header(section))
            current = section
        lines.append(b"\t" + key if entry.value is None else b"\t" + key + b" = " + _quoted(entry.value))
    return b"\n".join(lines) + b"\n"


def _header(section: bytes) -> bytes:
    name, dot, subsection = section.partition(b".")
    if not dot:
        return b"[" + name + b"]"
    escaped = subsection.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b"[" + name + b' "' + escaped + b'"]'


def _quoted(value: bytes) -> bytes:
    if _PLAIN.fullmatch(value):
        return value
    escaped = (
        value.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n").replace(b"\t", b"\\t")
    )
    return b'"' + escaped.replace(b"\b", b"\\b") + b'"'
