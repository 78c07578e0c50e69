"""The count of modules on the path of a push: what is a call, and what is a return."""

import asyncio
import sys
from types import FrameType
from typing import Any

from bench.path import _path
from bench.traced import _is_entered, _is_written


def test_the_same_way_back_counts_once() -> None:
    """Modules in the order of the first visit; a loop between two modules is one return."""
    path = _path(["a", "a", "b", "c", "b", "c", "b", "a", "d"])
    assert path.modules == ("a", "b", "c", "d")
    assert path.returns == len({("c", "b"), ("b", "c"), ("b", "a")})
    assert path.all_returns == 4


async def _waits_twice() -> list[int]:
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return [number for number in range(3)]  # noqa: C416 # a comprehension has a frame of its own in Python 3.11


def test_resuming_a_coroutine_is_no_call() -> None:
    """It is entered once, however often it waits; its comprehension is not counted."""
    entered: list[str] = []

    def profile(frame: FrameType, event: str, _argument: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename == __file__ and _is_written(code) and _is_entered(frame):
            entered.append(code.co_name)

    sys.setprofile(profile)
    try:
        asyncio.run(_waits_twice())
    finally:
        sys.setprofile(None)
    assert entered == ["_waits_twice"]
