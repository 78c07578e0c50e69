"""Command prefixes that let a process run only when nobody else needs the machine."""

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
