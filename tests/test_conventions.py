"""Conventions of the code that no linter checks."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "stargate_gate"
NOQA = re.compile(r"# noqa(?P<codes>: [A-Z]+[0-9]+(?:, [A-Z]+[0-9]+)*)?(?P<reason>.*)")


def test_every_noqa_gives_its_reason() -> None:
    """A rule of the linter is switched off by code, and for a reason that stands beside it."""
    without = [
        f"{path.relative_to(PACKAGE)}:{number}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (found := NOQA.search(line))
        and (found["codes"] is None or len(found["reason"].strip(" #-()")) < 4)
    ]
    assert not without


STARTS_TASKS = {"create_task", "ensure_future", "gather", "run_coroutine_threadsafe"}


def _bare_tasks(source: str) -> Iterator[int]:
    """The lines that start a task, except those that start it in a group."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ImportFrom(module="asyncio", names=names):
                bare = any(one.name in STARTS_TASKS for one in names)
            case ast.Attribute(attr="create_task", value=owner):
                bare = not ast.unparse(owner).endswith("group")
            case ast.Attribute(attr=name):
                bare = name in STARTS_TASKS
            case _:
                continue
        if bare:
            yield node.lineno


def test_every_task_has_an_owner() -> None:
    """Outside of aio/ a task is started in a task group, by `all_of` or `beside`, or in `HeldTasks`.

    So the error of each task reaches somebody, and none runs on when its owner has ended.
    """
    bare = [
        f"{path.relative_to(PACKAGE)}:{number}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] != "aio"
        for number in _bare_tasks(path.read_text())
    ]
    assert not bare


def test_a_bare_task_is_found() -> None:
    """The rule sees each way to start one."""
    found = """
from asyncio import gather
asyncio.create_task(work())
asyncio.get_running_loop().create_task(work())
asyncio.ensure_future(work())
await asyncio.gather(work(), work())
"""
    allowed = """
group.create_task(work())
self._group.create_task(work())
asyncio.wait({task})
"""
    assert sorted(_bare_tasks(found)) == [2, 3, 4, 5, 6]
    assert not list(_bare_tasks(allowed))
