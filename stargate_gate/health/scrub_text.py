"""The scrub in the status report, in words. Pure."""

from collections.abc import Iterator

from stargate_gate.health.concerns import Concern
from stargate_gate.health.wording import duration
from stargate_gate.status import ScrubStatus

MAX_DAMAGED = 10  # named one by one; the log and the metrics have all
MEGABYTE = 1_000_000


def scrub_text(scrub: ScrubStatus) -> str:
    """How many copies are verified, in one line."""
    copies = f"{scrub.verified} of {scrub.total} copies verified"
    parts = [copies if scrub.total else "no copies listed yet"]
    if scrub.damaged:
        parts.append(f"{len(scrub.damaged)} damaged")
    if scrub.suspects:
        parts.append(f"{scrub.suspects} to check after an unclean end")
    if scrub.oldest_check_s is not None and scrub.on:
        parts.append(f"oldest check {duration(scrub.oldest_check_s)} ago")
    if scrub.running is not None:
        parts.append(f"now {scrub.running} at {scrub.bytes_per_s / MEGABYTE:.1f} MB/s")
    elif not scrub.on:
        parts.append("off")
    return ", ".join(parts)


def scrub_concerns(scrub: ScrubStatus) -> Iterator[Concern]:
    """What an operator should look at."""
    for one in scrub.damaged[:MAX_DAMAGED]:
        text = f"this node's copy of {one.name} is damaged: {one.why}; {one.remedy}"
        yield Concern("copy_damaged", text, one.name)
    if (more := len(scrub.damaged) - MAX_DAMAGED) > 0:
        yield Concern("copy_damaged", f"and {more} more copies of this node are damaged: see the log", "more")
    if scrub.late and scrub.oldest_check_s is not None:
        yield Concern(
            "scrub_late",
            f"a copy was checked last {duration(scrub.oldest_check_s)} ago: raise scrub.rate_mb_s, or "
            "scrub.interval_days",
        )
