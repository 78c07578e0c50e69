"""The exit codes that clients, scripts and monitoring rely on. They never change meaning."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Stargate's own exit codes; where the text says BSD, the number is sysexits(3)'s.

    Whatever git itself exits with is passed on as it is when Stargate has nothing to refuse.
    """

    OK = 0
    NO_SUCH_KEY = 1  # this and the next four: git kv only
    CONFLICT = 2
    BAD_KEY = 4
    GIT_FAILED = 5
    EXPIRED = 7
    NOT_LEADER = 9
    USAGE = 64  # BSD EX_USAGE
    NO_REPOSITORY = 66  # BSD EX_NOINPUT
    UNAVAILABLE = 69  # BSD EX_UNAVAILABLE
    INTERNAL = 70  # BSD EX_SOFTWARE
    TRY_AGAIN = 75  # BSD EX_TEMPFAIL: not replicated in time
    NOT_ALLOWED = 77  # BSD EX_NOPERM
    CONFIGURATION = 78  # BSD EX_CONFIG
