"""What a repository's config may say once it is served here. Pure; git-config(1).

A config file that came with a copied repository can name programs that git would start, folders
outside, and other files to read. Whatever does is dropped; policies (receive.*, pack.*, hideRefs…)
and data (remote.*.url) stay.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Lower case, as `git config --list` prints sections and keys; a subsection is any bytes.
_UNWANTED = re.compile(
    rb"""
      include\.path | includeif\..*\.path
    | core\.(hookspath|worktree|fsmonitor|fsmonitorhookversion|sshcommand|gitproxy|editor|pager|askpass
            |alternaterefscommand|alternaterefsprefixes|attributesfile|excludesfile|bare|sharedrepository)
    | filter\..* | diff\..*\.(textconv|command) | merge\..*\.driver | tar\..*\.command
    | (merge|diff)tool\..* | man\..* | browser\..* | alias\..* | pager\..* | credential\..* | trailer\..*
    | gpg\..* | user\..* | commit\..* | tag\..* | sequence\..* | interactive\..* | sendemail\..* | imap\..*
    | uploadpack\.packobjectshook | receive\.procreceiverefs | gc\..*hook
    | remote\..*\.(vcs|uploadpack|receivepack|proxy) | branch\..* | url\..* | protocol\..* | http\..*
    | submodule\..* | extensions\.(worktreeconfig|partialclone) | remote\..*\.(promisor|partialclonefilter)
    | uploadarchive\.allowunreachable
    """,
    re.VERBOSE | re.DOTALL,
)

_PLAIN = re.compile(rb"[A-Za-z0-9/_.+-]+")
_SEAL = b"# checked by stargate: "


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
    """Whether a served repository's config must not say this."""
    return _UNWANTED.fullmatch(entry.key) is not None


def unsupported(entries: Sequence[ConfigEntry]) -> str | None:
    """Why a repository that says this cannot be served; None if it can."""
    for entry in entries:
        if entry.key == b"extensions.refstorage" and entry.value not in {b"files", None}:
            return "its refs are not stored as files"
    return None


def adopted(entries: Sequence[ConfigEntry], hooks: Path) -> list[ConfigEntry]:
    """The entries as they should be: the unwanted gone, a bare repository, our hooks."""
    kept = [entry for entry in entries if not is_unwanted(entry)]
    return [*kept, *_ours(hooks)]


def fresh(object_format: str, hooks: Path) -> list[ConfigEntry]:
    """What a new repository says."""
    if object_format == "sha1":
        return [ConfigEntry(b"core.repositoryformatversion", b"0"), *_ours(hooks)]
    return [
        ConfigEntry(b"core.repositoryformatversion", b"1"),
        ConfigEntry(b"extensions.objectformat", object_format.encode("ascii")),
        *_ours(hooks),
    ]


def is_dropped(entry: ConfigEntry) -> bool:
    """Whether adoption takes something away by leaving this out, and does not just say it itself."""
    return (
        is_unwanted(entry) and entry != ConfigEntry(b"core.bare", b"true") and entry.key != b"core.hookspath"
    )


def seal(entries: Sequence[ConfigEntry]) -> bytes:
    """A config file with a checksum in a comment at its end, so that any later change shows."""
    content = encode(entries)
    return content + _SEAL + hashlib.sha256(content).hexdigest().encode() + b"\n"


def is_sealed(content: bytes, hooks: Path) -> bool:
    """Whether `content` is as `seal` made it, for these hooks."""
    body, mark, checksum = content.rpartition(_SEAL)
    return (
        bool(mark)
        and checksum.strip() == hashlib.sha256(body).hexdigest().encode()
        and body.endswith(encode(_ours(hooks)).partition(b"\n")[2])
    )


def _ours(hooks: Path) -> list[ConfigEntry]:
    return [ConfigEntry(b"core.bare", b"true"), ConfigEntry(b"core.hookspath", bytes(hooks))]


def encode(entries: Sequence[ConfigEntry]) -> bytes:
    """A config file that says just this, in this order."""
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
