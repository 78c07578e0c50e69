"""What a new repository has besides what `git init` makes. Blocks for the disk."""

import os
from pathlib import Path

from stargate_gate.datadir.files import fsync_dir, write_durably
from stargate_gate.datadir.layout import DataDir
from stargate_gate.repos.adoption import write_fresh_config
from stargate_gate.repos.identities import FILE_MODE, give_id
from stargate_gate.repos.names import encode_ref
from stargate_gate.repos.repository import read_id, read_object_format


def furnish(new: Path, object_format: str, datadir: DataDir, head: str | None, identity: str) -> None:
    """Write what `git init` does not, and put everything on disk, bottom up. `head`: as in `Store.create`."""
    write_fresh_config(new, object_format, datadir)
    give_id(new, identity)
    head_line = encode_ref(head) + b"\n" if head else (new / "HEAD").read_bytes()
    write_durably(new / "HEAD", head_line, mode=FILE_MODE)
    for folder, _, _ in os.walk(new, topdown=False):
        fsync_dir(Path(folder))


def is_begun(path: Path, identity: str, object_format: str) -> bool:
    """Whether an earlier attempt has made that repository at `path`."""
    try:
        return read_id(path) == identity and read_object_format(path) == object_format
    except OSError:
        return False
