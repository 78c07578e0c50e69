"""Which URLs a remote has, and how git is told to use one of them. Pure.

Only URLs that the user has configured are used: all of `remote.NAME.pushurl`, else `remote.NAME.url`. Reads
use the same URLs as writes: there writes are acknowledged, so a writer always reads what it wrote.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from stargate_gate.kv.errors import KvUsageError

# A remote that exists only on git's command line, for one URL; git applies url.*.insteadOf to it.
_NAME = "git-kv-candidate"
_HANDED_ON = ("proxy", "proxyauthmethod", "receivepack", "uploadpack", "serveroption")


class Remote(NamedTuple):
    """A remote as the user configured it."""

    name: str
    urls: Sequence[str]
    options: Mapping[str, Sequence[str]]

    def config(self, url: str) -> list[str]:
        """`git -c` items that make the remote CANDIDATE stand for that URL."""
        made = [f"remote.{_NAME}.url={url}", f"remote.{_NAME}.pushurl={url}"]
        made += [
            f"remote.{_NAME}.{option}={value}" for option, values in self.options.items() for value in values
        ]
        return made


CANDIDATE = _NAME


def configured(name: str, settings: Mapping[str, Sequence[str]]) -> Remote:
    """The remote of that name.

    Raises:
        KvUsageError: there is none.
    """
    urls = settings.get(f"remote.{name}.pushurl") or settings.get(f"remote.{name}.url") or ()
    if not urls:
        raise KvUsageError(f"no remote {name!r} here; add it: git remote add {name} URL")
    options = {
        option: settings[f"remote.{name}.{option}"]
        for option in _HANDED_ON
        if f"remote.{name}.{option}" in settings
    }
    return Remote(name, tuple(dict.fromkeys(urls)), options)
