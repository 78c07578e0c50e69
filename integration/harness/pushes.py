"""A loop of writes in a client, and what came of them."""

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from integration.harness.machine import WAIT_LIMIT_S, Machine, eventually

END_LIMIT_S = 120.0  # more than one attempt takes


@dataclass(frozen=True)
class Push:
    """One attempt. `what` is a commit's oid, or a key; times are CLOCK_MONOTONIC, one clock for all."""

    began_s: float
    ended_s: float
    what: str
    ok: bool
    said: str


class Pusher:
    """Started by `Client.start_pusher`; see there."""

    def __init__(self, client: Machine, file: str) -> None:
        self.file = file
        self._client = client

    def pushes(self) -> list[Push]:
        """Every attempt that has ended so far."""
        written = self._client.ask("cat", self.file, ok=False).out
        whole = written[: written.rfind("\n") + 1].splitlines()
        lines: list[dict[str, Any]] = [json.loads(line) for line in whole]
        return [Push(**fields) for fields in lines]

    def accepted(self, since_s: float = 0.0) -> list[Push]:
        """The attempts that succeeded, of those that began after `since_s`."""
        return [push for push in self.pushes() if push.ok and push.began_s > since_s]

    def wait_accepted(self, since_s: float = 0.0, limit_s: float = WAIT_LIMIT_S) -> Push:
        """Wait for the first attempt that began after `since_s` and succeeded."""
        try:
            return eventually(lambda: self.accepted(since_s), "an accepted push", limit_s)[0]
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.pushes()[-5:]}") from None

    def stop(self) -> list[Push]:
        """End the loop after the attempt that runs; every attempt."""
        self._client.run("touch", f"{self.file}.stop")
        ended = ("test", "-e", f"{self.file}.ended")
        eventually(
            lambda: self._client.ask(*ended, ok=False).status == 0, f"the end of {self.file}", END_LIMIT_S
        )
        return self.pushes()


def longest_gap_s(pushes: list[Push], since_s: float) -> float:
    """The longest time without an accepted push, counted from `since_s`: how long clients had to wait."""
    moments = [since_s, *(push.ended_s for push in pushes if push.ok and push.ended_s > since_s)]
    return max(after - before for before, after in pairwise(moments))
