"""Every error that Stargate raises on purpose, with the exit code a client or a shell sees.

    StargateError                      70
    ├── NotLeaderError                  9   this node does not take writes (now)
    ├── UsageError                     64   an invalid command, name or argument
    ├── NoSuchRepositoryError          66
    ├── UnavailableError               69   something this node needs is not available (now)
    │   ├── BrokenRepositoryError      69   a folder that should be a repository and cannot be served
    │   ├── ElectionUnavailableError   69   the lock or the cluster record cannot be trusted or reached
    │   └── AddressError               69   the floating address cannot be claimed or released (now)
    ├── GitFailedError                 70   a git command of ours failed; carries its stderr
    ├── TryAgainError                  75   not replicated in time
    │   └── RepositoryGoneError        75   it was deleted, or moved away, during the request
    ├── NotAllowedError                77   this identity may not do that
    └── ConfigurationError             78   the YAML file, or what it points at
        └── NewerFormatError           78   a file that a newer Stargate has written
    LeadershipLostError                 9   (a NotLeaderError) this node led, and cannot prove it any more
    git kv's own, with 1, 2, 4, 5 and 7, are in kv/errors.py

Messages are lower-case facts that say what to do next. They are shown to clients as they are, so
they hold no paths, no addresses of other hosts than the leader's, and no operator detail.
"""

from collections.abc import Sequence
from typing import ClassVar

from stargate_gate.exitcodes import ExitCode


class StargateError(Exception):
    """The root of the tree. `message` is one line for people; `exit_code` is for programs."""

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NotLeaderError(StargateError):
    """This node does not take writes. The words "not leader" are always in the message."""

    exit_code = ExitCode.NOT_LEADER

    def __init__(self, message: str) -> None:
        super().__init__(message if "not leader" in message else f"not leader: {message}")


class LeadershipLostError(NotLeaderError):
    """This node led and lost it, or cannot prove that it still leads."""


class UsageError(StargateError):
    """A command, a repository name or an argument is invalid."""

    exit_code = ExitCode.USAGE


class NoSuchRepositoryError(StargateError):
    """No repository of that name on this node."""

    exit_code = ExitCode.NO_REPOSITORY


class UnavailableError(StargateError):
    """Something that this node needs is not available at the moment."""

    exit_code = ExitCode.UNAVAILABLE


class BrokenRepositoryError(UnavailableError):
    """A folder should be a repository, and cannot be served as it is: somebody has to repair it.

    Trying again does not help. A standby puts such a copy into the trash, and fetches it anew.

    problem  what is wrong with it, without the name
    """

    def __init__(self, message: str, problem: str | None = None) -> None:
        super().__init__(message)
        self.problem = problem or message


class ElectionUnavailableError(UnavailableError):
    """The leader lock or the cluster record is missing, foreign, damaged, too old or out of reach.

    Code must not take this for a first start: a node that cannot trust the record does not lead.
    """


class AddressError(UnavailableError):
    """The floating address cannot be claimed or released. Names programs and servers: not for clients."""


class GitFailedError(StargateError):
    """A git command of Stargate's own failed."""

    def __init__(self, argv: Sequence[str], returncode: int, stderr: bytes) -> None:
        self.argv = tuple(argv)
        self.returncode = returncode
        self.stderr = stderr.decode("utf-8", "replace").strip()
        super().__init__(f"git {self._subcommand()} failed with {returncode}: {self._reason()}")

    def _reason(self) -> str:
        """The first error line, which names the cause, and the last line, which names the result."""
        lines = self.stderr.splitlines() or ["no message"]
        cause = next((line for line in lines if line.startswith(("fatal: ", "error: "))), lines[-1])
        return cause if cause == lines[-1] else f"{cause}; {lines[-1]}"

    def _subcommand(self) -> str:
        """The first word of the argv that is neither git nor one of its leading options."""
        words = iter(self.argv[1:])
        for word in words:
            if word in {"-c", "-C"}:
                next(words, None)
            elif not word.startswith("-"):
                return word
        return "command"


class TryAgainError(StargateError):
    """Not replicated in time; the outcome is unknown to the client."""

    exit_code = ExitCode.TRY_AGAIN


class RepositoryGoneError(TryAgainError):
    """The repository in which a request worked is gone. One with its name is a different repository."""


class NotAllowedError(StargateError):
    """This identity may not do that."""

    exit_code = ExitCode.NOT_ALLOWED


class ConfigurationError(StargateError):
    """One or more problems of the configuration, all found at once.

    `problems` are finished lines, each with file, key path and remedy.
    """

    exit_code = ExitCode.CONFIGURATION

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class NewerFormatError(ConfigurationError):
    """A file has a larger format number than this version knows (formats.py): it must not be changed."""

    def __init__(self, place: object, found: int, known: int) -> None:
        super().__init__([newer_format(place, found, known)])


def newer_format(place: object, found: int, known: int) -> str:
    """What to say of content at `place` that a newer Stargate has written, with what to do."""
    return (
        f"{place} has format {found}, and this version of stargate reads formats up to {known}: "
        f"a newer version has written it; update stargate on this node"
    )
