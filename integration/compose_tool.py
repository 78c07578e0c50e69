"""Which compose there is: Debian packages `docker-compose`, Docker's own packages bring `docker compose`."""

import shutil
import subprocess

COMPOSE_FILE = "integration/compose.yaml"
PLUGIN = ("docker", "compose")
ALONE = ("docker-compose",)
LIMIT_S = 60


def compose_tool() -> tuple[str, ...]:
    """The words that start it; those of Debian's package if there is neither."""
    if shutil.which(PLUGIN[0]):
        asked = subprocess.run([*PLUGIN, "version"], capture_output=True, timeout=LIMIT_S, check=False)
        if asked.returncode == 0:
            return PLUGIN
    return ALONE
