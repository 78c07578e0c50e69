"""Reads private keys from files: the node's SSH host keys and the cluster's key."""

from collections.abc import Sequence
from pathlib import Path

import asyncssh

from stargate_gate.aio.foreign_files import read_regular
from stargate_gate.config.files import MAX_KEY_BYTES, open_to_others
from stargate_gate.datadir.files import write_durably
from stargate_gate.errors import ConfigurationError
from stargate_gate.net.peer_pass import secret_of

KEY_FILE = "ssh_host_ed25519_key"  # in data_dir/state, when the configuration names none


def load_host_keys(paths: Sequence[Path]) -> list[asyncssh.SSHKey]:
    """The private host keys in these files, in this order.

    Raises:
        ConfigurationError: naming each file that is missing, damaged, encrypted or open to others.
    """
    keys: list[asyncssh.SSHKey] = []
    problems: list[str] = []
    for path in paths:
        try:
            keys.append(load_private_key("ssh.host_keys", path))
        except ConfigurationError as error:
            problems += error.problems
    kinds = [key.get_algorithm() for key in keys]
    problems += [
        f"ssh.host_keys: there are several keys of type {kind}: keep one"
        for kind in sorted({kind for kind in kinds if kinds.count(kind) > 1})
    ]
    if problems:
        raise ConfigurationError(problems)
    return keys


def load_or_make_host_keys(state: Path) -> list[asyncssh.SSHKey]:
    """The host key of a single node: ed25519, mode 0600. It is made at the first start.

    Raises:
        ConfigurationError: it cannot be read or made.
    """
    path = state / KEY_FILE
    try:
        if not path.exists():
            key = asyncssh.generate_private_key("ssh-ed25519", comment="stargate")
            write_durably(path, key.export_private_key())
            write_durably(path.with_name(f"{KEY_FILE}.pub"), key.export_public_key(), mode=0o644)
    except OSError as error:
        raise ConfigurationError(
            [f"node.data_dir: {path} cannot be made ({error.strerror}): let this user write there"]
        ) from error
    return load_host_keys([path])


def public_key_of(path: Path) -> bytes:
    """The public half of the private key in `path`, as RFC 4253, section 6.6, encodes it.

    Raises:
        ConfigurationError: as `load_host_keys`, for cluster.key.
    """
    return load_private_key("cluster.key", path).public_data


def pass_secret_of(path: Path) -> bytes:
    """The secret for passes of nodes that have the private key in `path`; see net/peer_pass.py.

    Raises:
        ConfigurationError: as `public_key_of`.
    """
    return secret_of(load_private_key("cluster.key", path).export_private_key("pkcs8-der"))


def fingerprints(keys: Sequence[asyncssh.SSHKey]) -> tuple[str, ...]:
    """The fingerprints of `keys`, as ssh-keygen -l prints them."""
    return tuple(key.get_fingerprint() for key in keys)


def load_private_key(config_key: str, path: Path) -> asyncssh.SSHKey:
    """The private key in the file at `path`, which `config_key` of the YAML file names.

    Raises:
        ConfigurationError: it is missing, damaged, encrypted or open to others; it says what to do.
    """
    try:
        content, info = read_regular(path, MAX_KEY_BYTES)
    except OSError as error:
        problem = f"it cannot be read ({error.strerror}); make one with ssh-keygen -t ed25519 -N '' -f {path}"
        raise ConfigurationError([f"{config_key}: {path}: {problem}"]) from error
    if open_to_others(info):
        raise ConfigurationError(
            [f"{config_key}: {path}: others than its owner can read it: chmod 600 {path}"]
        )
    try:
        return asyncssh.import_private_key(content)
    except asyncssh.KeyEncryptionError as error:
        problem = "it is encrypted; a server needs one without a passphrase"
        raise ConfigurationError([f"{config_key}: {path}: {problem}"]) from error
    except asyncssh.KeyImportError as error:
        problem = "it holds no private key that can be read"
        raise ConfigurationError([f"{config_key}: {path}: {problem}"]) from error
