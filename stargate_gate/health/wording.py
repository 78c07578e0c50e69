"""Times, amounts and lags in words. Pure."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

T = TypeVar("T")

MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
KIBI = 1024
MAX_LISTED = 10  # names in a sentence; programs get all of them


def duration(seconds: float) -> str:
    """A length of time in its two largest units: "42 s", "3 min 5 s", "2 d 7 h"."""
    whole = max(0, int(seconds))
    for size_s, name, smaller_s, smaller in ((DAY_S, "d", HOUR_S, "h"), (HOUR_S, "h", MINUTE_S, "min")):
        if whole >= size_s:
            return f"{whole // size_s} {name} {whole % size_s // smaller_s} {smaller}"
    return f"{whole // MINUTE_S} min {whole % MINUTE_S} s" if whole >= MINUTE_S else f"{whole} s"


def time_of_day(at: float, now: float) -> str:
    """Seconds since 1970 as "07:38:12 UTC"; with the date if that is not today's."""
    then = datetime.fromtimestamp(at, UTC)
    today = datetime.fromtimestamp(now, UTC).date()
    return then.strftime("%H:%M:%S UTC" if then.date() == today else "%Y-%m-%d %H:%M:%S UTC")


def amount(count_bytes: float) -> str:
    """Bytes in the largest unit that leaves one digit before the point: "770.3 MiB"."""
    size, index = float(count_bytes), 0
    while size >= KIBI and index < len(UNITS) - 1:
        size, index = size / KIBI, index + 1
    return f"{size:.0f} {UNITS[index]}" if index == 0 else f"{size:.1f} {UNITS[index]}"


def behind(changes: int | None, seconds: float | None) -> str:
    """How far somebody is behind: "up to date", "3 changes behind", "3 changes, 1.2 s behind"."""
    if changes is None:
        return "not known how far behind"
    if changes == 0:
        return "up to date"
    age = "" if seconds is None else f", {seconds:.1f} s"
    return f"{changes} change{'' if changes == 1 else 's'}{age} behind"


def catching_up(done: int, total: int, received_bytes: int, bytes_per_s: int) -> str:
    """How far a standby is with what it lacks; the same words on both nodes."""
    if not total:
        return "compares its repositories with the leader's"
    return (
        f"catching up: {done} of {total} {'repository' if total == 1 else 'repositories'}, "
        f"{amount(received_bytes)} at {amount(bytes_per_s)}/s"
    )


def aged(text: str, what: str, age_s: float | None) -> str:
    """`text`, and how old that knowledge is: "… (heard 12 s ago)"."""
    return text if age_s is None else f"{text} ({what} {duration(age_s)} ago)"


def plural(count: int, one: str, more: str = "") -> str:
    """A number and its noun: "1 repository", "3 repositories"; `more` if it is no "-y" or "-s"."""
    regular = f"{one[:-1]}ies" if one.endswith("y") else f"{one}s"
    return f"{count} {one if count == 1 else more or regular}"


def listed(items: Sequence[T], text: Callable[[T], str], between: str = ", ") -> str:
    """The first MAX_LISTED in words, and how many more there are: "a, b, and 8 more"."""
    shown = [text(one) for one in items[:MAX_LISTED]]
    if len(items) > MAX_LISTED:
        shown.append(f"and {len(items) - MAX_LISTED} more")
    return between.join(shown)
