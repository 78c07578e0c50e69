"""How git is started: its arguments and its environment come from here and from nowhere else. Pure.

A repository may have been copied in from anywhere, and its config file can name programs. Flags win
over the repository's own config; what no flag can take back is removed when the repository is
adopted (adoption.py). Together: no hooks but ours, no file system monitor, no command that lists the
refs of an alternate, no program that checks signatures but gpg and ssh-keygen, and no transport but
`fd::`, so that a config's `url.*.insteadOf`, `core.sshCommand` or promisor remote reaches nothing.

Replace refs are never followed. With them, git's own check that a push is complete looks at other
objects than those that it stores: a push of a commit whose tree is missing was taken (tried).
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from stargate_gate.repos.fsck import RECEIVE_FSCK
from stargate_gate.repos.names import RESERVED
from stargate_gate.repos.repository import Repository

Service: TypeAlias = Literal["upload-pack", "receive-pack", "upload-archive"]

MAX_GIT_PROTOCOL_BYTES = 64

# Last one wins, and the command line comes after the repository's own config (git-config(1),
# transfer.hideRefs; tried with 2.39.5).
_HIDE_RESERVED = (f"transfer.hideRefs={RESERVED}",)
_HIDE_ONLY_RESERVED = ("transfer.hideRefs=!refs/", f"transfer.hideRefs={RESERVED}")

_ALWAYS = (
    # durable means on disk: git does not sync refs by itself
    "core.fsync=all",
    "core.fsyncMethod=fsync",
    # nothing that git starts outlives the command
    "gc.auto=0",
    "gc.autoDetach=false",
    "maintenance.auto=false",
    "receive.autogc=false",
    "fetch.writeCommitGraph=false",
    # a repository's config starts no programs and leads nowhere else
    "core.fsmonitor=false",
    "core.alternateRefsCommand=true",
    "core.askPass=true",
    "credential.helper=",
    "gpg.program=gpg",
    "gpg.openpgp.program=gpg",
    "gpg.x509.program=gpgsm",
    "gpg.ssh.program=ssh-keygen",
    "receive.denyCurrentBranch=refuse",
    "fetch.recurseSubmodules=false",
    # an object is what its id says; the environment says the same, and 2.39 lets the config win over it
    "core.useReplaceRefs=false",
    # a fetch opens no file and no address that a config names (git 2.40 and newer)
    "fetch.bundleURI=",
    "transfer.bundleURI=false",
    "uploadpack.advertiseBundleURIs=false",
    # objects are checked where users push them (see service_argv), and never between nodes: a standby
    # takes whatever its leader has, also what was pushed before there was a check
    "transfer.fsckObjects=false",
    "fetch.fsckObjects=false",
    "receive.fsckObjects=false",
    # files that root or another user copied in: only data_dir's owner can put them there
    "safe.directory=*",
    "safe.bareRepository=all",
)

_SERVING = (
    "uploadpack.allowFilter=true",  # partial clones
    "uploadpack.allowAnySHA1InWant=true",  # and their later fetches; protocol v2 allows that anyway
    "receive.advertisePushOptions=true",
)

# A standby's fetch is waited for by pushes. Looking for deltas among large binaries takes minutes in which
# no byte flows (1.2 GB: tried), and hard compression costs more time than it saves on a local network.
_SERVING_PEERS = ("pack.window=0", "pack.compression=1", "core.compression=1")

_PASSED_ON = ("PATH", "TMPDIR")
_FIXED = {
    "HOME": "/nonexistent",
    "LANG": "C.UTF-8",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_ALLOW_PROTOCOL": "fd",
    "GIT_ADVICE": "0",
}

_GIT_PROTOCOL = re.compile(r"version=[0-9](?::[a-z0-9=.-]+)*", re.ASCII)


def git_argv(*args: str, config: Sequence[str] = ()) -> list[str]:
    """`git`, the constant flags, then `config` ("key=value"; wins over the constant ones), then `args`."""
    flags = (*_ALWAYS, *_HIDE_RESERVED, *config)
    return ["git", *(word for flag in flags for word in ("-c", flag)), *args]


def repository_argv(repository: Repository, *args: str, config: Sequence[str] = ()) -> list[str]:
    """A git command of Stargate's own in `repository`: found by path alone, and no hooks run.

    It works in its folder, as git's server programs do: when the repository gets another name, or
    another one gets its name, the command goes on in the one in which it began.
    """
    where = ("-C", str(repository.path), "--git-dir=.")
    return git_argv(*where, *args, config=("core.hooksPath=/dev/null", *config))


def service_argv(service: Service, repository: Repository, *, hooks: Path, peer: bool = False) -> list[str]:
    """One of git's three server programs on `repository`.

    hooks  data_dir/hooks: these and no others run.
    peer   for a mirror: everything but refs/stargate is advertised, also what the repository's own
           hideRefs hides from users, or a mirror would remove it. Its packs are made fast, not small. What
           a peer pushes is a value that was taken from a user before, and is not checked again.
    """
    config = [*_SERVING, f"core.hooksPath={hooks}"]
    if peer:
        config += (*_HIDE_ONLY_RESERVED, *_SERVING_PEERS)
    elif service == "receive-pack":
        config += RECEIVE_FSCK
    options = ["--strict"] if service == "upload-pack" else []
    return git_argv(service, *options, str(repository.path), config=config)


def git_environment(*, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The whole environment of a git process: a fixed part, an allow-list of this node's, and `extra`."""
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {"PATH": os.defpath, **passed_on, **_FIXED, **(extra or {})}


def valid_git_protocol(value: str | None) -> str | None:
    """A client's GIT_PROTOCOL if it is well-formed ("version=2", "version=1:key=value"), else None."""
    if value is None or len(value) > MAX_GIT_PROTOCOL_BYTES or not _GIT_PROTOCOL.fullmatch(value):
        return None
    return value
