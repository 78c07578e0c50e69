"""The errors of `git kv`: each has one line for people and an exit code for scripts."""

from stargate_gate.errors import NotLeaderError, StargateError, UsageError
from stargate_gate.exitcodes import ExitCode


class KvError(StargateError):
    """Git, the network or the disk did not do what was needed."""

    exit_code = ExitCode.GIT_FAILED


class NoSuchKeyError(StargateError):
    """The key has no value."""

    exit_code = ExitCode.NO_SUCH_KEY


class ConflictError(StargateError):
    """The key or the ledger is not what was expected, or others changed it first at every attempt."""

    exit_code = ExitCode.CONFLICT


class BadKeyError(StargateError):
    """The key is invalid."""

    exit_code = ExitCode.BAD_KEY


class ExpiredError(StargateError):
    """The key has expired."""

    exit_code = ExitCode.EXPIRED


class GaveUpError(NotLeaderError):
    """No node that leads was found within the time limit."""


class KvUsageError(UsageError):
    """An argument is invalid."""
