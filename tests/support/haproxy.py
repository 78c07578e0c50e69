"""A real HAProxy, from the distribution's package."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.cluster import WAIT_LIMIT_S


@contextlib.contextmanager
def haproxy(folder: Path, config: str, *, prefix: tuple[str, ...] = ()) -> Iterator[Path]:
    """Runs with `config` while the body runs; the value is its log. `prefix`: before its command line."""
    folder.mkdir(parents=True, exist_ok=True)
    file, log = folder / "haproxy.cfg", folder / "haproxy.log"
    file.write_text(config)
    checked = subprocess.run(
        ["haproxy", "-c", "-f", str(file)], capture_output=True, text=True, timeout=WAIT_LIMIT_S, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*prefix, "haproxy", "-db", "-f", str(file)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield log
    finally:
        process.kill()
        process.wait(WAIT_LIMIT_S)
