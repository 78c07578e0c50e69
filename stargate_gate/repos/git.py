"""How git is started: its arguments and its environment come from here and from nowhere else. Pure.

A repository may have been copied in from anywhere, and its config file can name programs. Flags on the
command line win over the repository's own config; keys that no flag can override are removed when the
repository is adopted (adoption.py). Together they allow only our hooks, no file system monitor, no command
that lists the refs of an alternate, only gpg and ssh-keygen for signatures, and only the transport `fd::`, so
that `url.*.insteadOf`, `core.sshCommand` or a promisor remote in a config has no effect.

Replace refs are never followed. With them, git checks whether a push is complete with other objects than it
stores: it accepted a push of a commit whose tree was missing (tried).
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from stargate_gate.repos.names import RESERVED
from stargate_gate.repos.repository import Repository

Service: TypeAlias = Literal["upload-pack", "receive-pack", "upload-archive"]

MAX_GIT_PROTOCOL_BYTES = 64

# Last one wins, and the command line comes after the repository's own config (git-config(1),
# transfer.hideRefs; tried with 2.39.5).
_HIDE_RESERVED = (f"transfer.hideRefs={RESERVED}",)
_HIDE_ONLY_RESERVED = ("transfer.hideRefs=!refs/", f"transfer.hideRefs={RESERVED}")

_ALWAYS = (
    # git does not sync refs by default
    "core.fsync=all",
    "core.fsyncMethod=fsync",
    # nothing that git starts outlives the command
    "gc.auto=0",
    "gc.autoDetach=false",
    "maintenance.auto=false",
    "receive.autogc=false",
    "fetch.writeCommitGraph=false",
    # a repository's config starts no program and leads to no other place
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
    # no replace refs; the environment says the same, but in git 2.39 the config wins over it
    "core.useReplaceRefs=false",
    # a fetch opens no file and no address that a config names (git 2.40 and newer)
    "fetch.bundleURI=",
    "transfer.bundleURI=false",
    "uploadpack.advertiseBundleURIs=false",
    # objects are checked when users push them (see service_argv), and not between nodes: a standby
    # accepts everything that its leader has, including objects from before there was a check
    "transfer.fsckObjects=false",
    "fetch.fsckObjects=false",
    "receive.fsckObjects=false",
    # files that belong to root or another user: only the owner of data_dir can have put them there
    "safe.directory=*",
    "safe.bareRepository=all",
)

# Which objects git refuses in a push: its own check, without its errors about harmless old history.
#
# git-fsck(1) lists the messages, and fsck-msgs in git's source says how severe each is. In a push all
# messages except infos count as errors (receive.fsckObjects, git-config(1)). Without the check, git would
# store a tree with `.git` or `..` as a name, or a commit that names a file as its tree, and every later clone
# would fail.
#
# A message is ignored here if all of this is true: earlier programs wrote such objects, people have them in
# histories that they cannot change any more, and the objects are not misleading about what a file contains or
# where it is written. Such messages are about who made a commit and when, and about how the mode of a file
# was written. Messages that git 2.39 does not know are not in the list, because git warns about an unknown
# name at every push.
#
# Message → why it is harmless.
HARMLESS = {
    "badDate": "git cannot read when a commit was made, and shows another time",
    "badDateOverflow": "a time beyond what git can count; it shows another one",
    "badEmail": "an address that is not between angle brackets",
    "badName": "a name with an angle bracket in it",
    "badTimezone": "a zone of more than four digits, like +051800",
    "missingEmail": "a name without an address, from a conversion",
    "missingNameBeforeEmail": "an address without a name",
    "missingSpaceBeforeDate": "a line of a header lacks a blank, or its date",
    "missingSpaceBeforeEmail": "a line of a header lacks a blank",
    "zeroPaddedDate": "a time that begins with a zero",
    "zeroPaddedFilemode": "the mode of a folder as 040000, where git writes 40000",
}

# For pushes of users: everything is checked except the above. A repository that must accept more says so in
# its own config (receive.fsck.MESSAGE=ignore), which adoption keeps.
RECEIVE_FSCK = (
    "receive.fsckObjects=true",
    *(f"receive.fsck.{message}=ignore" for message in sorted(HARMLESS)),
)

_SERVING = (
    "uploadpack.allowFilter=true",  # partial clones
    "uploadpack.allowAnySHA1InWant=true",  # and their later fetches; protocol v2 allows that anyway
    "receive.advertisePushOptions=true",
)

# Pushes wait for the fetch of a standby. Searching deltas among large binary files takes minutes without a
# byte sent (1.2 GB: tried), and strong compression costs more time than it saves on a local network.
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
    """`git` with the constant flags, then `config` ("key=value", wins over the flags), then `args`."""
    flags = (*_ALWAYS, *_HIDE_RESERVED, *config)
    return ["git", *(word for flag in flags for word in ("-c", flag)), *args]


def repository_argv(repository: Repository, *args: str, config: Sequence[str] = ()) -> list[str]:
    """A git command that Stargate itself runs in `repository`. No hooks run, no other folder is searched.

    It works in the repository's folder, as git's server programs do. If the repository gets another name
    meanwhile, or another one gets its name, the command still works in the one in which it started.
    """
    where = ("-C", str(repository.path), "--git-dir=.")
    return git_argv(*where, *args, config=("core.hooksPath=/dev/null", *config))


def service_argv(service: Service, repository: Repository, *, hooks: Path, peer: bool = False) -> list[str]:
    """One of git's three server programs on `repository`.

    hooks  data_dir/hooks: these and no others run.
    peer   for another node: every ref but refs/stargate is advertised, including those that the repository's
           own hideRefs hides from users, because a mirror would remove them otherwise. Packs are made fast
           and not small. What a peer pushes was accepted from a user before, and is not checked again.
    """
    config = [*_SERVING, f"core.hooksPath={hooks}"]
    if peer:
        config += (*_HIDE_ONLY_RESERVED, *_SERVING_PEERS)
    elif service == "receive-pack":
        config += RECEIVE_FSCK
    options = ["--strict"] if service == "upload-pack" else []
    return git_argv(service, *options, str(repository.path), config=config)


def git_environment(*, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The whole environment of a git process: fixed variables, allowed ones of this process, and `extra`."""
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {"PATH": os.defpath, **passed_on, **_FIXED, **(extra or {})}


def valid_git_protocol(value: str | None) -> str | None:
    """A client's GIT_PROTOCOL if it is well-formed ("version=2", "version=1:key=value"), else None."""
    if value is None or len(value) > MAX_GIT_PROTOCOL_BYTES or not _GIT_PROTOCOL.fullmatch(value):
        return None
    return value
