"""Keeping the user's repository in shape, now and then, as `git fetch` does after each fetch."""

from stargate_gate.kv import git
from stargate_gate.kv.ulid import moment_ms

FETCHED = "refs/kv-fetch"  # where a command fetches to before it knows what it has
LEFT_OVER_MS = 3_600_000  # no command takes that long; the one that made such a ref was killed


def tidy(now_ms: int) -> None:
    """Remove what killed commands left; let git pack loose objects if it and the user think it is time."""
    names = git.output("for-each-ref", "--format=%(refname)", FETCHED).decode().split()
    left_over = [name for name in names if moment_ms(name.split("/")[2]) < now_ms - LEFT_OVER_MS]
    if left_over:
        git.update_refs(dict.fromkeys(left_over))
    git.run("maintenance", "run", "--auto", "--quiet")
