"""What is told when nothing more is tried. Pure."""

from collections.abc import Sequence

from stargate_gate.errors import StargateError
from stargate_gate.kv.errors import ConflictError, GaveUpError, KvError
from stargate_gate.kv.outcomes import Answer, Outcome


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
