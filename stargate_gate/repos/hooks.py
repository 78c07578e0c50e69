"""Installs the shipped hooks in the folder that every repository's core.hooksPath names."""

from stargate_gate.datadir.files import fsync_dir, write_durably
from stargate_gate.datadir.layout import DataDir
from stargate_gate.share import shared_dir

HOOK_MODE = 0o755


def install_hooks(datadir: DataDir) -> None:
    """Make data_dir/hooks/ contain exactly the shipped hooks, durably and executable.

    Other files in it are removed, because a hook there runs at every push.

    Raises:
        OSError: it cannot be written.
        FileNotFoundError: the installation lacks its hooks.
    """
    wanted = {path.name: path.read_bytes() for path in shared_dir("hooks").iterdir() if _is_hook(path.name)}
    for path in datadir.hooks.iterdir():
        if path.name not in wanted:
            path.unlink()
    for name, content in wanted.items():
        path = datadir.hooks / name
        if path.is_symlink() or not path.is_file() or path.read_bytes() != content:
            write_durably(path, content, mode=HOOK_MODE)
        path.chmod(HOOK_MODE)
    fsync_dir(datadir.hooks)


def _is_hook(name: str) -> bool:
    return "." not in name and not name.endswith("~")
