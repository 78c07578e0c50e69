"""Telling a copy that is damaged here from a fetch that failed for another reason: steps of a job. Pure.

If a change cannot be applied, the cause is the leader, the line to it, this node's disk (full or broken), or
the copy. Only in the last case does it help to fetch the copy anew. So this reads the copy itself, without
the leader and without writing, which works on a full disk, too. If the result is wrong, that costs only a
fetch and some space in the trash: the old copy stays until a complete new one is beside it, and is kept after
that.

The leader has all values of the copy, except those that are not known replicated. If there are any, the copy
stays in the trash as long as they are rescued (rescue_steps.py).

Meanwhile the standby stays in the sync set: it still has what it confirmed, and it confirms nothing of that
repository before the new copy equals the leader's. If there is a push to it meanwhile, this standby is late,
and leaves the sync set like any other.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from stargate_gate.errors import GitFailedError, NoSuchRepositoryError, StargateError, UnavailableError
from stargate_gate.replication.standby.answers import Copy, Walked
from stargate_gate.replication.standby.steps import ReadRefs, Steps, Walk
from stargate_gate.repos.snapshot import RefSnapshot

if TYPE_CHECKING:
    from stargate_gate.repos.names import RepositoryName

WALK_EVERY_S = 600.0  # a walk that has found nothing is not repeated before
_NO_RESOURCES = re.compile(r"out of memory|cannot allocate|too many open files|cannot fork", re.IGNORECASE)


class DamageSteps:
    """Looks for damage of this node's copies. One per session of a standby. `now` gives seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._walked: dict[RepositoryName, float] = {}

    def look(self, copy: Copy, wanted: RefSnapshot, failed: StargateError) -> Steps[str | None]:
        """What is wrong with the copy here, that could not be made what `wanted` says; None: nothing is seen.

        failed  what went wrong
        """
        try:
            local: RefSnapshot = yield ReadRefs(copy)
        except NoSuchRepositoryError:
            return None
        except (GitFailedError, OSError) as error:
            return None if _for_lack_of_resources(error) else f"its refs cannot be read: {error}"
        if broken := sorted(local.broken & wanted.refs.keys()):
            return f"{broken[0]} has no value here"
        if not isinstance(failed, GitFailedError | UnavailableError) or _for_lack_of_resources(failed):
            return None
        return (yield from self._walk(copy))

    def _walk(self, copy: Copy) -> Steps[str | None]:
        """Whether every object that its refs need is there and whole, as far as commits and trees tell."""
        if self._now() - self._walked.get(copy.name, -WALK_EVERY_S) < WALK_EVERY_S:
            return None
        walked: Walked | None = yield Walk(copy)
        if walked is None:
            return None
        if walked.status <= 0 or _for_lack_of_resources(walked.error):
            self._walked[copy.name] = self._now()
            return None
        self._walked.pop(copy.name, None)
        return f"objects are missing or damaged: {walked.error.message}"


def _for_lack_of_resources(error: Exception) -> bool:
    text = error.stderr if isinstance(error, GitFailedError) else str(error)
    return _NO_RESOURCES.search(text) is not None
