"""What a real node has written into its log, and how a test waits for it.

A node writes the line about something when it has done it. For a session that is after the client has got its
exit status, so a test that reads the log right after a client command may be too early: it waits with
`wait_logged` or `wait_sessions`. That something is NOT in the log can be said only of a log that is complete:
that of a node whose process has ended, or what `complete_log` returns.
"""

import json
import signal
from typing import Any

from tests.support.cluster import WAIT_LIMIT_S, NodeProcess, eventually

Line = dict[str, Any]


def log_lines(node: NodeProcess, event: str | None = None, **wanted: object) -> list[Line]:
    """The lines of `event` (None: of all) with these values that are there now, oldest first.

    What is no JSON (stacks, a line that is half written) is left out.
    """
    whole = (text for text in node.log().splitlines(keepends=True) if text.endswith("\n"))
    lines = (json.loads(text) for text in whole if text.startswith("{"))
    return [
        line
        for line in lines
        if event in {None, line["event"]} and all(line.get(key) == value for key, value in wanted.items())
    ]


def wait_logged(
    node: NodeProcess, event: str, count: int = 1, *, limit_s: float = WAIT_LIMIT_S, **wanted: object
) -> list[Line]:
    """At least `count` lines of `event` with these values, once the node has written them.

    Raises:
        TimeoutError: they were not there after `limit_s`; it has the end of the log.
    """

    def enough() -> list[Line]:
        found = log_lines(node, event, **wanted)
        return found if len(found) >= count else []

    try:
        return eventually(enough, f"{count} lines {event} {wanted} of {node.name}", limit_s)
    except TimeoutError as error:
        raise TimeoutError(f"{error}\n{node.log()[-4000:]}") from None


def wait_sessions(node: NodeProcess, count: int = 1, **wanted: object) -> list[Line]:
    """The lines of at least `count` sessions with these values. A session writes it at its end."""
    return wait_logged(node, "session", count, **wanted)


def complete_log(node: NodeProcess) -> str:
    """The log with everything that the node has written about what it did before this call.

    A node that runs is hung up: its line about that comes after the others.
    """
    before = len(log_lines(node, "reloaded"))

    def complete() -> bool:
        ended = node.process is None or node.process.poll() is not None
        return ended or len(log_lines(node, "reloaded")) > before

    if not complete():
        node.signal(signal.SIGHUP)
    eventually(complete, f"the line of {node.name} about a hangup")
    return node.log()
