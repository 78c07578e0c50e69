"""Watches every node of a cluster at once and tells whether two of them ever led together."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.support.cluster import Cluster, NodeProcess, eventually

ANSWER_LIMIT_S = 0.5  # a node that is stopped answers nothing; the next question comes soon
PAUSE_S = 0.01


@dataclass(frozen=True)
class Sight:
    """One answer of a node's /readyz: it was given between `asked_at` and `answered_at`, in seconds."""

    node: str
    asked_at: float
    answered_at: float
    ready: bool
    term: int


@dataclass(frozen=True)
class Reign:
    """A node said ready in `term` again and again, with nothing else between: so all the time."""

    node: str
    term: int
    since: float  # when the first ready was heard
    until: float  # when the last one was asked for


class Witness:
    """Asks every node of a cluster, each in a thread of its own, from entering to leaving.

    Leaving it fails the test if two nodes said ready in the same term, or at the same time.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._sights: dict[str, list[Sight]] = {node.name: [] for node in cluster.nodes}
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch, args=(node,), name=f"witness-{node.name}", daemon=True)
            for node in cluster.nodes
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if error is None:
            assert two_leaders(self.reigns()) is None, two_leaders(self.reigns())

    def reigns(self) -> list[Reign]:
        """Who was ready, from when to when, so far."""
        return [reign for sights in self._sights.values() for reign in _reigns(list(sights))]

    def sees_nobody_ready(self, nodes: list[NodeProcess], for_s: float) -> None:
        """Fails if one of `nodes` says ready within the next `for_s` seconds, or if none of them answers."""
        begin = time.monotonic()

        def seen(node: NodeProcess) -> list[Sight]:
            return [sight for sight in list(self._sights[node.name]) if sight.asked_at >= begin]

        eventually(
            lambda: all(any(sight.asked_at > begin + for_s for sight in seen(node)) for node in nodes),
            f"answers of {[node.name for node in nodes]} for {for_s} s",
            for_s + 10,
        )
        ready = [sight for node in nodes for sight in seen(node) if sight.ready]
        assert not ready, f"said ready: {ready[0]}"

    def _watch(self, node: NodeProcess) -> None:
        while not self._stop.wait(PAUSE_S):
            asked_at = time.monotonic()
            _code, body = node.get("/readyz", ANSWER_LIMIT_S)
            answered_at = time.monotonic()
            if body:
                said = json.loads(body)
                self._sights[node.name].append(
                    Sight(node.name, asked_at, answered_at, said["ready"], said["term"])
                )


def two_leaders(reigns: list[Reign]) -> str | None:
    """The first two reigns of different nodes that share a term or a moment; None if there are none."""
    for index, one in enumerate(reigns):
        for other in reigns[index + 1 :]:
            together = one.since <= other.until and other.since <= one.until
            if one.node != other.node and (one.term == other.term or together):
                return f"two leaders: {one} and {other}"
    return None


def _reigns(sights: list[Sight]) -> Iterator[Reign]:
    """A single ready is a moment that is not known exactly: it counts for its term only."""
    run: list[Sight] = []
    for sight in sights:
        if run and not (sight.ready and sight.term == run[0].term):
            yield _reign(run)
            run = []
        if sight.ready:
            run.append(sight)
    if run:
        yield _reign(run)


def _reign(run: list[Sight]) -> Reign:
    return Reign(run[0].node, run[0].term, run[0].answered_at, run[-1].asked_at)
