"""Removes leftovers from the user's repository and lets git pack it, after some of the commands."""

from stargate_gate.kv import git
from stargate_gate.kv.ulid import moment_ms

FETCHED = "refs/kv-fetch"  # a command fetches to a folder below it first
LEFT_OVER_MS = 3_600_000  # no command takes that long: one that left such a ref was killed


def tidy(now_ms: int) -> None:
    """Remove refs that killed commands left, and run git's automatic maintenance."""
    names = git.output("for-each-ref", "--format=%(refname)", FETCHED).decode().split()
    left_over = [name for name in names if moment_ms(name.split("/")[2]) < now_ms - LEFT_OVER_MS]
    if left_over:
        git.update_refs(dict.fromkeys(left_over))
    git.run("maintenance", "run", "--auto", "--quiet")
