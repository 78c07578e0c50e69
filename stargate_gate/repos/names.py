"""Names of repositories and of refs: which ones are allowed, and how a ref's name becomes text. Pure.

Limits for refs. git takes any name that the file system takes. A standby keeps the same ref in another
folder, and git makes NAME.lock beside it: a name that one node can store may be too long on another. So the
limits here are far below those of the file system, and the same on every node.
"""

import re
from dataclasses import dataclass

from stargate_gate.errors import UsageError
from stargate_gate.printable import printable

MAX_NAME_BYTES = 255  # as a path below repositories/; Linux allows 4096 for the whole path
MAX_COMPONENT_BYTES = 100  # with .git; a file name may have 255
MAX_COMPONENTS = 8  # limits the depth of a search through all repositories
SUFFIX = ".git"

MAX_REF_COMPONENT_BYTES = 250  # a file name may have 255, and git writes NAME.lock first: 251 fail (tried)
MAX_REF_BYTES = 1_000  # a path may have 4,096: this leaves 3,000 for data_dir and the repository's name
RESERVED = "refs/stargate"  # a node's own refs (rescued values): never advertised, pushed or mirrored

_COMPONENT = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9._+-]*", re.ASCII)
_RESERVED_BYTES = RESERVED.encode()
_SHOWN = 80  # characters of an invalid repository name in a message
_SHOWN_REF_BYTES = 60


@dataclass(frozen=True, order=True)
class RepositoryName:
    """A checked name, "org/app": relative, without .git, safe as a path and as an argument."""

    value: str

    def __str__(self) -> str:
        return self.value

    @property
    def components(self) -> tuple[str, ...]:
        """The folders and the last part."""
        return tuple(self.value.split("/"))


def parse_repository_name(raw: str) -> RepositoryName:
    """The name that a client wrote. "org/app", "org/app.git", "/org/app.git" and "//org/app" are the same.

    Raises:
        UsageError: it is no valid name; the message says why.
    """
    value = raw.lstrip("/").removesuffix("/").removesuffix(SUFFIX)
    if not value:
        raise _bad(raw, "it is empty")
    if len(value) > MAX_NAME_BYTES:
        raise _bad(raw, f"it is longer than {MAX_NAME_BYTES} bytes")
    components = value.split("/")
    if len(components) > MAX_COMPONENTS:
        raise _bad(raw, f"it has more than {MAX_COMPONENTS} components")
    for component in components:
        problem = component_problem(component)
        if problem is not None:
            raise _bad(raw, problem)
    return RepositoryName(value)


def component_problem(component: str) -> str | None:  # noqa: PLR0911 - a list of rules
    """Why `component`, given without its .git, is not allowed in a repository's name; None if it is."""
    if not component:
        return "it has an empty component"
    if component.startswith((".", "-")):
        return "a component begins with '.' or '-'"
    if not _COMPONENT.fullmatch(component):
        return "only letters, digits and '.', '_', '+', '-' may be in it"
    if len(component) > MAX_COMPONENT_BYTES:
        return f"a component is longer than {MAX_COMPONENT_BYTES} bytes"
    if component.endswith(".lock"):
        return "a component ends in '.lock'"
    if component.endswith(SUFFIX):
        return "only its end may be '.git': a repository holds no other repositories"
    return None


def _bad(raw: str, problem: str) -> UsageError:
    shown = raw if len(raw) <= _SHOWN else raw[:_SHOWN] + "..."
    return UsageError(f"not a repository name: {shown!r}: {problem}; write it like org/app")


def decode_ref(name: bytes) -> str:
    """A ref's name as text. Bytes that are not UTF-8 become surrogates, the same on every machine."""
    return name.decode("utf-8", "surrogateescape")


def encode_ref(name: str) -> bytes:
    """The reverse of `decode_ref`."""
    return name.encode("utf-8", "surrogateescape")


def is_reserved(ref: bytes) -> bool:
    """Whether this ref or folder of refs is the node's own: never shown, and different on each node."""
    return ref == _RESERVED_BYTES or ref.startswith(_RESERVED_BYTES + b"/")


def ref_problem(ref: bytes) -> str | None:
    """Why the ref's name is too long for Stargate, as text for people; None if it is not.

    Checks no other rule of git-check-ref-format(1).
    """
    if len(ref) > MAX_REF_BYTES:
        return f"ref {_shown_ref(ref)} has {len(ref)} bytes: a name may have {MAX_REF_BYTES}"
    longest = max(map(len, ref.split(b"/")))
    if longest > MAX_REF_COMPONENT_BYTES:
        return (
            f"ref {_shown_ref(ref)} has {longest} bytes between two slashes: "
            f"{MAX_REF_COMPONENT_BYTES} are allowed"
        )
    return None


def _shown_ref(ref: bytes) -> str:
    """The name for a message: only its beginning if it is long, and no control characters."""
    return printable(ref if len(ref) <= _SHOWN_REF_BYTES else ref[:_SHOWN_REF_BYTES] + b"...")
