"""What git's words say of a push or a fetch. Pure.

Read from git 2.30 and later, in English: exit status, stderr, and the lines of `push --porcelain`.
"""

import re
from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

from stargate_gate.errors import StargateError
from stargate_gate.kv.errors import ConflictError, GaveUpError, KvError
from stargate_gate.printable import printable


class Done(NamedTuple):
    """What a git process left."""

    status: int
    stdout: bytes
    stderr: str
    silent: bool = False  # it was ended because it gave no sign of life


class Outcome(Enum):
    """What is known after talking to a remote."""

    DONE = "done"
    CONFLICT = "conflict"  # the refs are not what they were: nothing has happened
    NOT_LEADER = "not leader"  # nothing has happened
    UNKNOWN = "unknown"  # no answer, or none that helps; a push may have come through
    MISSING = "missing"  # a fetch: the remote has no such ref
    REFUSED = "refused"  # nothing has happened, and nothing will by trying again


class Answer(NamedTuple):
    """An outcome, and one line that says why."""

    outcome: Outcome
    reason: str


# Patterns are compiled when they are needed, which is seldom: start-up time counts.
_CONFLICTS = (
    r"stale info|atomic transaction failed|fetch first|non-fast-forward|failed to lock|"
    r"cannot lock ref|failed to update ref|"
    r"reference already exists|incorrect old value|unable to resolve reference|already exists"
)
_REFUSALS = (
    r"(?i)Permission denied \(|Host key verification failed|not allowed|hook declined|"
    r"does not appear to be a git repository|no such repository|repository not found|"
    r"does not support|hidden ref|prohibited|Authentication failed|could not read Username|"
    r"remote helper|transport '.*' not allowed|unsupported URL|no path specified"
)
_UNKNOWN = r"outcome (?:of this push )?(?:is )?unknown"
_PROGRESS = r"objects: |deltas: |^remote: Total |^remote: *$"
_REJECTED = r"(?m)^!\t[^\t]*\t(\[[^\]]*\].*)$"


def of_push(done: Done) -> Answer:
    """How a push with --porcelain, --atomic and leases ended."""
    if done.status == 0:
        return Answer(Outcome.DONE, "ok")
    rejected = re.findall(_REJECTED, done.stdout.decode("utf-8", "replace"))
    telling = [line for line in rejected if "atomic push failed" not in line]
    said = "\n".join([*rejected, done.stderr])
    reason = (telling[0] + _hook_says(done.stderr)) if telling else complaint(done.stderr)
    if done.silent:
        return Answer(Outcome.UNKNOWN, "no answer")
    if re.search(_UNKNOWN, said):
        return Answer(Outcome.UNKNOWN, reason)
    if "not leader" in said:
        return Answer(Outcome.NOT_LEADER, complaint(done.stderr))
    if any(re.search(_CONFLICTS, line) for line in rejected):
        return Answer(Outcome.CONFLICT, reason)
    return Answer(Outcome.REFUSED if re.search(_REFUSALS, said) else Outcome.UNKNOWN, reason)


def of_fetch(done: Done) -> Answer:
    """How a fetch of refs by their names ended."""
    if done.status == 0:
        return Answer(Outcome.DONE, "ok")
    if done.silent:
        return Answer(Outcome.UNKNOWN, "no answer")
    if "couldn't find remote ref" in done.stderr:
        return Answer(Outcome.MISSING, complaint(done.stderr))
    if "not leader" in done.stderr:
        return Answer(Outcome.NOT_LEADER, complaint(done.stderr))
    refused = re.search(_REFUSALS, done.stderr)
    return Answer(Outcome.REFUSED if refused else Outcome.UNKNOWN, complaint(done.stderr))


def _hook_says(stderr: str) -> str:
    """The first line of a hook's, behind a colon."""
    for line in re.split(r"[\r\n]+", stderr):
        if line.startswith("remote: ") and not re.search(_PROGRESS, line):
            return f": {line.removeprefix('remote: ').strip()}"
    return ""


def complaint(stderr: str) -> str:
    """The one line of what git and its remote said that tells best what is wrong."""
    lines = [line.strip() for line in stderr.replace("\r", "\n").split("\n")]
    lines = [printable(line, instead=" ") for line in lines if line]
    for wanted in _TELLING:
        for line in lines:
            if wanted(line):
                return line.removeprefix("remote: ").removeprefix("fatal: ").removeprefix("remote error: ")
    return lines[-1] if lines else "no message"


_TELLING: tuple[Callable[[str], bool], ...] = (
    lambda line: "not leader" in line,
    lambda line: line.startswith("fatal: remote error: "),
    lambda line: line.startswith(("ssh: ", "stargate: ")) or "ermission denied" in line,
    lambda line: line.startswith(("fatal: ", "error: ", "! ")),
)


def telling(answers: Sequence[Answer]) -> Answer:
    """Of the answers of several URLs, the one to tell of."""
    order = (Outcome.NOT_LEADER, Outcome.UNKNOWN, Outcome.REFUSED)
    return min(
        answers, key=lambda answer: order.index(answer.outcome) if answer.outcome in order else len(order)
    )


def failure(answer: Answer, what: str) -> StargateError:
    """The error that an answer amounts to when nothing more is tried."""
    match answer.outcome:
        case Outcome.NOT_LEADER:
            return GaveUpError(what)
        case Outcome.CONFLICT:
            return ConflictError(f"conflict: others were faster all the time; {what}")
        case Outcome.REFUSED:
            return KvError(answer.reason)
        case _:
            return KvError(what)
