"""The environment that tests and measurements run in: nothing of the user's git and ssh leaks in."""

import os
from pathlib import Path

KEPT = ("STARGATE_CI",)
DROPPED = ("GIT_", "SSH_", "STARGATE_", "XDG_")


def isolated_environment(home: Path) -> dict[str, str]:
    """This process's environment with the empty `home`, a fixed author, and no system configuration."""
    kept = {name: value for name, value in os.environ.items() if name in KEPT or not name.startswith(DROPPED)}
    author = {
        f"GIT_{role}_{what}": value
        for role in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "Test"), ("EMAIL", "test@example.org"))
    }
    return {
        **kept,
        **author,
        "HOME": str(home),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
    }
