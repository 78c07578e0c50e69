"""Reads two paths from the YAML file, for programs that sshd starts at each login and that must be fast.

Loading the whole model takes a fifth of a second. The running node has checked the file with it, so only two
keys are read here. If the file is not simple, `load_config` is used after all, which reports what is wrong.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import yaml

from stargate_gate.aio.foreign_files import read_regular
from stargate_gate.config.location import MAX_FILE_BYTES, config_path

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where PyYAML was built with it


class Paths(NamedTuple):
    """`node.data_dir` and the file with users' keys, as `load_config` would return them."""

    data_dir: Path
    authorized_keys: Path


def peek_paths(given: Path | None) -> Paths:
    """The two paths in the file `given`, else in $STARGATE_CONFIG, else the defaults.

    Raises:
        ConfigurationError: the file is wrong; it has every problem.
    """
    file = config_path(given)
    found = None if file is None else _plain(file)
    return found or _by_load_config(given)


def _by_load_config(given: Path | None) -> Paths:
    from stargate_gate.config.load import load_config  # noqa: PLC0415 - slow, and rarely needed

    config = load_config(given)
    return Paths(config.node.data_dir, config.authorized_keys_path)


def _plain(file: Path) -> Paths | None:
    """The paths if the file is simple; else None."""
    try:
        data = yaml.load(read_regular(file, MAX_FILE_BYTES)[0].decode("utf-8-sig"), Loader=_Loader)  # noqa: S506 - a safe loader
        data_dir, keys = data["node"]["data_dir"], (data.get("ssh") or {}).get("authorized_keys")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, yaml.YAMLError):
        return None
    base = Path(os.path.abspath(file)).parent  # noqa: PTH100 - as Path.absolute in load_config
    return _paths(base, data_dir, keys)


def _is_path(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value != "" and "\0" not in value


def _paths(base: Path, data_dir: object, keys: object) -> Paths | None:
    """As the model reads them: `~` is expanded, a relative path starts from the file's folder."""
    if not _is_path(data_dir) or not (keys is None or _is_path(keys)):
        return None
    try:
        root = base / Path(data_dir).expanduser()
        return Paths(root, root / "authorized_keys" if keys is None else base / Path(keys).expanduser())
    except RuntimeError:
        return None
