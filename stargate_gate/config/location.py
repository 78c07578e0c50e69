"""Which YAML file is meant, and how large it may be."""

import os
import stat
from pathlib import Path

CONFIG_VARIABLE = "STARGATE_CONFIG"
MAX_FILE_BYTES = 256 * 1024  # a hundred times the longest sensible file


def config_path(given: Path | None) -> Path | None:
    """The file that is meant: `given`, else $STARGATE_CONFIG, else none."""
    named = os.environ.get(CONFIG_VARIABLE)
    return given or (Path(named) if named else None)


def content_of(path: Path) -> bytes:
    """What is in the file: at most MAX_FILE_BYTES, and one byte more if it is larger.

    Only a regular file is read. A FIFO would hang here, and so would some devices.

    Raises:
        OSError: it cannot be read, or is no regular file.
        ValueError: it is no path.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(fd, "rb") as file:  # noqa: PTH123 # it is opened above
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(0, "it is no regular file")
        return file.read(MAX_FILE_BYTES + 1)
