"""What to do next about one address. Pure: no clock, no I/O.

Theory of operation. `wanted` is the state that the node wants; `done` is the state that is known to be in
force. It is None when that is not known: at the start, and from the beginning of an attempt until it
succeeds.

    wanted     proved   done           step
    leader     yes      this turn      keep
    leader     yes      anything else  claim
    leader     no       not a standby  release   (the lease has run out, or the process was frozen)
    standby    -        not a standby  release
    (otherwise)                        rest
"""

from typing import Literal

from stargate_gate.address.port import Turn
from stargate_gate.aio.backoff import Backoff

Step = Literal["claim", "keep", "release", "rest"]

# When an operator has removed the cause, it works again after at most 10 s.
RETRY = Backoff(0.5, 10.0, chance=lambda: 0.0)
REMIND_S = 60.0  # how often the log repeats the same problem


def next_step(wanted: Turn, done: Turn | None, *, proved: bool) -> Step:
    """The next step by the table above. `proved`: this node provably leads at this moment."""
    if wanted.role == "leader" and proved:
        return "keep" if done == wanted else "claim"
    return "rest" if done is not None and done.role == "standby" else "release"


def retry_s(failures: int) -> float:
    """Seconds to wait after `failures` failures in a row. Not spread: only one node moves an address."""
    return RETRY.delay_s(failures)
