"""The authorized_keys file as it is now: looked at on every login, read again when it has changed."""

import os
import time
from pathlib import Path

import structlog

from stargate_gate.gate.keys import MAX_FILE_BYTES, AuthorizedKeys, parse_authorized_keys

log = structlog.get_logger()

RACY_S = (
    2.0  # two changes within one tick of a file system's clock look alike; HFS+, SMB and FAT tick in 1 to 2 s
)

HOW_TO_ADD_A_KEY = "write a public key into it, one a line, as in: cat ~/.ssh/id_ed25519.pub >> {path}"


class KeyFile:
    """Watches one file by stat. When it cannot be read, the last good content stays in force."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._signature: tuple[int, ...] | None = None
        self._keys = AuthorizedKeys()
        self._trouble: str | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """What operators should know of this file, as finished lines; empty when all is well."""
        trouble = () if self._trouble is None else (self._trouble,)
        return tuple(f"{self._path}: {problem}" for problem in (*trouble, *self._keys.problems))

    def current(self) -> AuthorizedKeys:
        """The keys in force now. Never raises. Reads the file only if it has changed."""
        try:
            if self._signature is None or _signature(self._path.stat()) != self._signature:
                self._read()
        except OSError as error:
            self._signature = None
            stay = "the keys read last stay in force"
            if not self._keys.entries:
                stay = f"nobody can log in: {HOW_TO_ADD_A_KEY.format(path=self._path)}"
            self._report_trouble(f"cannot be read ({error.strerror or error}); {stay}")
        return self._keys

    def _read(self) -> None:
        with self._path.open("rb") as file:
            info = os.fstat(file.fileno())
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise OSError(f"larger than {MAX_FILE_BYTES} bytes")
        keys = parse_authorized_keys(content)
        settled = time.time() - info.st_mtime > RACY_S
        self._signature = _signature(info) if settled else None
        self._trouble = None
        if keys != self._keys or keys.problems != self._keys.problems:
            log.info("authorized_keys_read", path=str(self._path), keys=len(keys.entries))
            for problem in keys.problems:
                log.warning("authorized_keys_problem", path=str(self._path), problem=problem)
        self._keys = keys

    def _report_trouble(self, trouble: str) -> None:
        if trouble != self._trouble:
            log.warning("authorized_keys_unreadable", path=str(self._path), trouble=trouble)
        self._trouble = trouble


def _signature(info: os.stat_result) -> tuple[int, ...]:
    return (info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino, info.st_dev)
