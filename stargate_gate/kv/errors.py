"""What `git kv` ends with when it cannot do what was asked: a line for people, a code for scripts."""

from stargate_gate.errors import NotLeaderError, StargateError, UsageError
from stargate_gate.exitcodes import ExitCode


class KvError(StargateError):
    """Git, the network or the disk did not do what was needed."""

    exit_code = ExitCode.GIT_FAILED


class NoSuchKeyError(StargateError):
    """The key has no value."""

    exit_code = ExitCode.NO_SUCH_KEY


class ConflictError(StargateError):
    """The key, or the ledger, is not what was expected; or others were faster all the time."""

    exit_code = ExitCode.CONFLICT


class BadKeyError(StargateError):
    """That is no key."""

    exit_code = ExitCode.BAD_KEY


class ExpiredError(StargateError):
    """The key's time to live is over."""

    exit_code = ExitCode.EXPIRED


class GaveUpError(NotLeaderError):
    """No node that leads was found within the time limit."""


class KvUsageError(UsageError):
    """An argument that cannot be meant."""
