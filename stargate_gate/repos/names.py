"""Repository names as clients write them, and what they may be. Pure."""

import re
from dataclasses import dataclass

from stargate_gate.errors import UsageError

MAX_NAME_BYTES = 255  # as a path below repositories/; Linux allows 4096 for the whole
MAX_COMPONENT_BYTES = 100  # with .git, a file name has 255 at most
MAX_COMPONENTS = 8  # a bound for the walk over all repositories
SUFFIX = ".git"

_COMPONENT = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9._+-]*", re.ASCII)
_SHOWN = 80  # characters of a bad name in a message


@dataclass(frozen=True, order=True)
class RepositoryName:
    """A checked name, "org/app": relative, without .git, safe as a path and as an argument."""

    value: str

    def __str__(self) -> str:
        return self.value

    @property
    def components(self) -> tuple[str, ...]:
        """The folders and the last name."""
        return tuple(self.value.split("/"))


def parse_repository_name(raw: str) -> RepositoryName:
    """The name that a client means by `raw`: "org/app", "org/app.git", "/org/app.git", "//org/app" are one.

    Raises:
        UsageError: it cannot be a repository's name; the message says why.
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
    """Why `component`, without its .git, cannot be part of a name; None if it can."""
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
