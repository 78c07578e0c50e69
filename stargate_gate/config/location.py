"""Which YAML file is meant, and how large it may be."""

import os
from pathlib import Path

CONFIG_VARIABLE = "STARGATE_CONFIG"
MAX_FILE_BYTES = 256 * 1024  # a hundred times the longest sensible file


def config_path(given: Path | None) -> Path | None:
    """The file that is meant: `given`, else $STARGATE_CONFIG, else none."""
    named = os.environ.get(CONFIG_VARIABLE)
    return given or (Path(named) if named else None)
