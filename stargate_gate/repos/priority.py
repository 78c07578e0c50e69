"""Command prefixes for processes that must not be in the way: low priority, bounded, and soon gone."""

import shutil

GENTLE = 10  # for work that should be done soon; see nice(1)
LOWEST = 19


def idle_priority(nice: int = GENTLE) -> list[str]:
    """Low priority for processor and disk, with the programs that this machine has."""
    words = []
    if shutil.which("nice"):
        words += ["nice", "-n", str(nice)]
    if shutil.which("ionice"):
        words += ["ionice", "-c", "3"]
    return words


def bounded_memory(max_bytes: int) -> list[str]:
    """At most `max_bytes` of memory of its own, not counting mapped files; nothing without prlimit(1)."""
    return ["prlimit", f"--data={max_bytes}"] if shutil.which("prlimit") else []


def ends_with_parent() -> list[str]:
    """Killed by the kernel when this process dies, also while it is stopped. Nothing without setpriv(1)."""
    return ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
