"""Which YAML file is used, and how large it may be."""

import os
from pathlib import Path

CONFIG_VARIABLE = "STARGATE_CONFIG"
MAX_FILE_BYTES = 256 * 1024  # a hundred times the size of any useful file


def config_path(given: Path | None) -> Path | None:
    """The file to use: `given`, else $STARGATE_CONFIG, else none."""
    named = os.environ.get(CONFIG_VARIABLE)
    return given or (Path(named) if named else None)
