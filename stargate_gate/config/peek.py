"""Two keys of the YAML file, for programs that sshd starts for each login and that must start fast.

The whole model costs a fifth of a second to load. A node that runs has read the file with it, so here
only what is asked for is read; whatever is not plain is left to `load_config`, which says what is wrong.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import yaml

from stargate_gate.aio.foreign_files import read_regular
from stargate_gate.config.location import MAX_FILE_BYTES, config_path

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where PyYAML was built with it


class Paths(NamedTuple):
    """`node.data_dir`, and where the keys of users are; as `load_config` gives them."""

    data_dir: Path
    authorized_keys: Path


def peek_paths(given: Path | None) -> Paths:
    """The two paths in the file `given`, else in $STARGATE_CONFIG, else the defaults.

    Raises:
        ConfigurationError: they cannot be told; every problem of the file.
    """
    file = config_path(given)
    found = None if file is None else _plain(file)
    return found or _of_the_whole(given)


def _of_the_whole(given: Path | None) -> Paths:
    from stargate_gate.config.load import load_config  # noqa: PLC0415 # what this module is here to avoid

    config = load_config(given)
    return Paths(config.node.data_dir, config.authorized_keys_path)


def _plain(file: Path) -> Paths | None:
    """The paths, if the file says them plainly."""
    try:
        data = yaml.load(read_regular(file, MAX_FILE_BYTES)[0].decode("utf-8-sig"), Loader=_Loader)  # noqa: S506 # a safe loader
        data_dir, keys = data["node"]["data_dir"], (data.get("ssh") or {}).get("authorized_keys")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, yaml.YAMLError):
        return None
    base = Path(os.path.abspath(file)).parent  # noqa: PTH100 # as Path.absolute, which load_config uses
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
