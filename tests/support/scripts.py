"""Small programs for tests that run programs."""

import textwrap
from pathlib import Path


def script(path: Path, text: str) -> Path:
    """An executable shell script at `path`."""
    path.write_text(f"#!/bin/sh\n{textwrap.dedent(text)}")
    path.chmod(0o755)
    return path
