"""Checks the files and folders that the configuration names: keys, authorized_keys. Changes nothing."""

import os
import re
import shutil
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from stargate_gate.config.address import AddressItem, CommandItem, DnsItem
from stargate_gate.config.findings import Finding, KeyPath
from stargate_gate.config.model import Config
from stargate_gate.config.tsig import read_tsig_key
from stargate_gate.config.values import search_path

MAX_KEY_BYTES = 64 * 1024  # an RSA key of 16384 bits has 13 KB

_PUBLIC_KEY = re.compile(
    rb"\s*(ssh-|ecdsa-sha2-|sk-|-----BEGIN (RSA |EC )?PUBLIC KEY|---- BEGIN SSH2 PUBLIC)"
)


def broken_files(config: Config, *, shared_volume: bool = True) -> list[Finding]:
    """Every problem of the files and folders that `config` names. Blocks for the disk.

    With `shared_volume` false, the volume of the leader lock is not read, because it may hang.
    """
    findings = [*_data_dir(config.node.data_dir)]
    if config.cluster is not None:
        findings += _private_key(("cluster", "key"), config.cluster.key)[1]
    findings += _host_keys(config.ssh.host_keys)
    if config.ssh.authorized_keys is not None:
        findings += _authorized_keys(("ssh", "authorized_keys"), config.ssh.authorized_keys)
    if shared_volume and config.election.flock.path is not None:
        findings += _lock(("election", "flock", "path"), config.election.flock.path)
    for index, item in enumerate(config.address):
        findings += _address(("address", index), item)
    return findings


def _address(here: KeyPath, item: AddressItem) -> Iterator[Finding]:
    """The programs and the key that an item of `address` needs."""
    if isinstance(item, DnsItem):
        yield from _tsig_key((*here, "key_file"), item.key_file)
        return
    if isinstance(item, CommandItem):
        key, programs = "command", item.command[:1]
    else:
        key, programs = "launcher", (*item.launcher[:1], "ip")
    for program in programs:
        if shutil.which(program, path=search_path()) is None:
            text = f"{program} is no program that this user can run; name one, or install it"
            yield Finding((*here, key), text)


def _tsig_key(key: KeyPath, path: Path) -> Iterator[Finding]:
    try:
        if not path.is_file():
            yield Finding(key, _no_file(path, "make a key with: tsig-keygen stargate > FILE"))
            return
        with path.open("rb") as file:
            info = os.fstat(file.fileno())
            text = file.read(MAX_KEY_BYTES).decode("utf-8", "replace")
    except OSError as error:
        yield Finding(key, _unreadable(path, error))
        return
    for problem in _too_open(path, info):
        yield Finding(key, problem)
    try:
        read_tsig_key(text)
    except ValueError as error:
        yield Finding(key, f"{path} {error}")


def _data_dir(path: Path) -> Iterator[Finding]:
    if os.path.lexists(path) and not os.path.isdir(path):  # noqa: PTH112 - it never raises
        yield Finding(("node", "data_dir"), f"{path} is no directory; name one, it is made if it is missing")


def _host_keys(paths: tuple[Path, ...]) -> Iterator[Finding]:
    """Each host key must be a private key, and only one of each kind is allowed."""
    seen: dict[str, Path] = {}
    for index, path in enumerate(paths):
        kind, findings = _private_key(("ssh", "host_keys", index), path)
        yield from findings
        if kind in seen:
            text = f"{path} is a second {kind} key after {seen[kind]}; keep one of each kind"
            yield Finding(("ssh", "host_keys", index), text)
        elif kind:
            seen[kind] = path


def _private_key(key: KeyPath, path: Path) -> tuple[str, list[Finding]]:
    """The kind of the private key, such as "ssh-ed25519" ("": not known), and its problems."""
    try:
        if not path.is_file():
            return "", [Finding(key, _no_file(path, "make a key with: ssh-keygen -t ed25519 -N '' -f FILE"))]
        with path.open("rb") as file:
            info = os.fstat(file.fileno())
            content = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        return "", [Finding(key, _unreadable(path, error))]
    if _PUBLIC_KEY.match(content):  # its mode is not checked: everybody may read a public key
        return "", [
            Finding(key, f"{path} is a public key; name the private one, which has no .pub at the end")
        ]
    findings = [Finding(key, text) for text in _too_open(path, info)]
    kind, problem = _kind_of_key(path, content)
    return kind, [*findings, Finding(key, problem)] if problem else findings


def _unreadable(path: Path, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"{path} cannot be read by this user; chown it to the user stargate runs as"
    return f"{path} cannot be read ({error.strerror}); name a file that can"


def _no_file(path: Path, remedy: str) -> str:
    if os.path.lexists(path):
        return f"{path} is no regular file; name one"
    return f"{path} does not exist; name the right file, or {remedy}"


def open_to_others(info: os.stat_result) -> bool:
    """Whether other users can read the file of a private key.

    As in OpenSSH, the group may read it only if the file belongs to another user, so that this user needs the
    group.
    """
    forbidden = 0o077 if info.st_uid == os.geteuid() else 0o007
    return bool(stat.S_IMODE(info.st_mode) & forbidden)


def _too_open(path: Path, info: os.stat_result) -> Iterator[str]:
    if open_to_others(info):
        mode = stat.S_IMODE(info.st_mode)
        others = "everybody" if mode & 0o007 else "its group"
        yield f"{path} is a private key open to {others} (mode {mode:04o}); run: chmod 600 {path}"


def _kind_of_key(path: Path, content: bytes) -> tuple[str, str]:
    """The kind of key and the problem, one of which is empty."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # about old kinds of keys, which the SSH server accepts or refuses
            public = _private(content).public_key()
            line = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    except TypeError:
        return "", f"{path} is protected by a passphrase; remove it with: ssh-keygen -p -N '' -f {path}"
    except (ValueError, UnsupportedAlgorithm, AttributeError):
        return "", f"{path} is no private key; make one with: ssh-keygen -t ed25519 -N '' -f FILE"
    return line.split()[0].decode("ascii"), ""


def _private(content: bytes) -> serialization.ssh.SSHPrivateKeyTypes:
    if b"BEGIN OPENSSH PRIVATE KEY" in content:
        return serialization.load_ssh_private_key(content, password=None)
    return serialization.load_pem_private_key(content, password=None)  # type: ignore[return-value] # others fail above


def _authorized_keys(key: KeyPath, path: Path) -> Iterator[Finding]:
    try:
        if not path.is_file():
            yield Finding(key, _no_file(path, "make it with one public key a line"))
            return
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    except OSError as error:
        yield Finding(key, _unreadable(path, error))
        return
    if mode & 0o002:
        yield Finding(key, f"{path} can be written by everybody (mode {mode:04o}); run: chmod go-w {path}")


def _lock(key: KeyPath, path: Path) -> Iterator[Finding]:
    """The lock file may be missing, because `stargate bootstrap` makes it. Its folder must exist."""
    try:
        if not path.parent.is_dir():
            yield Finding(
                key, f"the directory {path.parent} does not exist; mount the shared volume, or make it"
            )
        elif os.path.lexists(path) and not path.is_file():
            yield Finding(key, f"{path} is no regular file; name a file, stargate bootstrap makes it")
    except OSError as error:
        yield Finding(key, f"{path} cannot be reached ({error.strerror}); mount the shared volume")
