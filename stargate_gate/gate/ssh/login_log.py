"""The log lines about logins: one for each login, and a bounded number for refused ones.

Anybody who reaches the port can fail to log in thousands of times a second. So lines about refused logins
have a budget (BURST_LINES, refilled by LINES_PER_S), and those beyond it are only counted. Keys are named by
fingerprint and never shown.
"""

import time
from collections.abc import Callable, Mapping

import structlog

from stargate_gate.access.identity import Identity
from stargate_gate.printable import printable

log = structlog.get_logger()

BURST_LINES = 50
LINES_PER_S = 2.0
MAX_KEYS = 6  # named for one refused login; an agent may offer dozens
MAX_NAME = 64  # characters of a login name
MAX_REASON = 200  # characters


class LoginLog:
    """One per listener. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._budget = float(BURST_LINES)
        self._refilled_s = clock()
        self._withheld = 0

    def accepted(self, identity: Identity, login: str) -> None:
        """A client has proved that it has a key."""
        log.info(
            "logged_in",
            user=identity.user,
            access=identity.access,
            login=printable(login, MAX_NAME),
            key=identity.fingerprint,
            source=identity.source,
        )

    def refused(
        self,
        source: str,
        reason: str,
        *,
        login: str | None,
        keys: Mapping[str, str],
        attempts: int,
        duration_s: float,
        spoke_ssh: bool,
    ) -> None:
        """A connection has ended without a login.

        login      the login name; None if the client has not sent one
        keys       fingerprint of each key that was offered → why it did not count
        spoke_ssh  whether the client's first line was one of SSH; if not, the line has level debug
        """
        if not spoke_ssh:
            log.debug("not_logged_in", source=source, reason=printable(reason, MAX_REASON), attempts=attempts)
            return
        if not self._has_budget():
            self._withheld += 1
            return
        shown = [f"{fingerprint} {why}" for fingerprint, why in list(keys.items())[:MAX_KEYS]]
        if len(keys) > MAX_KEYS:
            shown.append(f"and {len(keys) - MAX_KEYS} more")
        log.info(
            "not_logged_in",
            source=source,
            login=None if login is None else printable(login, MAX_NAME),
            keys=shown,
            reason=printable(reason, MAX_REASON),
            attempts=attempts,
            duration_s=round(duration_s, 3),
        )

    def _has_budget(self) -> bool:
        now_s = self._clock()
        self._budget = min(BURST_LINES, self._budget + (now_s - self._refilled_s) * LINES_PER_S)
        self._refilled_s = now_s
        if self._budget < 1:
            return False
        self._budget -= 1
        if self._withheld:
            log.warning("logins_refused_without_a_line", count=self._withheld)
            self._withheld = 0
        return True
