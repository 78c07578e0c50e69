"""Finds out from git's output how a push or a fetch ended. Pure.

It reads the exit status, stderr and the lines of `push --porcelain`, in English, of git 2.30 and later.
"""

import re
from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

from stargate_gate.errors import StargateError
from stargate_gate.kv.errors import ConflictError, GaveUpError, KvError
from stargate_gate.printable import printable


class Done(NamedTuple):
    """The result of a git process that has ended."""

    status: int
    stdout: bytes
    stderr: str
    silent: bool = False  # it was ended because it sent nothing for too long


class Outcome(Enum):
    """How an exchange with a remote ended."""

    DONE = "done"
    CONFLICT = "conflict"  # the refs do not have the expected values; nothing was changed
    NOT_LEADER = "not leader"  # nothing was changed
    UNKNOWN = "unknown"  # no answer, or an unclear one; a push may have succeeded
    MISSING = "missing"  # a fetch: the remote has no such ref
    REFUSED = "refused"  # nothing was changed, and trying again does not help


class Answer(NamedTuple):
    """An outcome with one line that gives the reason."""

    outcome: Outcome
    reason: str


# Not compiled here, because they are rarely needed and start-up time matters.
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
    """The first line of a hook's message, after a colon; "" if there is none."""
    for line in re.split(r"[\r\n]+", stderr):
        if line.startswith("remote: ") and not re.search(_PROGRESS, line):
            return f": {line.removeprefix('remote: ').strip()}"
    return ""


def complaint(stderr: str) -> str:
    """The most useful line of the messages of git and its remote."""
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
    """The answer to report, of those of several URLs."""
    order = (Outcome.NOT_LEADER, Outcome.UNKNOWN, Outcome.REFUSED)
    return min(
        answers, key=lambda answer: order.index(answer.outcome) if answer.outcome in order else len(order)
    )


def failure(answer: Answer, what: str) -> StargateError:
    """The error to raise for an answer when giving up."""
    match answer.outcome:
        case Outcome.NOT_LEADER:
            return GaveUpError(what)
        case Outcome.CONFLICT:
            return ConflictError(f"conflict: others were faster all the time; {what}")
        case Outcome.REFUSED:
            return KvError(answer.reason)
        case _:
            return KvError(what)
