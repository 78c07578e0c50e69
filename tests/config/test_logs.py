"""One line a thing, on a terminal or for a machine."""

import asyncio
import io
import json
import logging
import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from stargate_gate.logs import Format, Level, _FromLibraries, configure_logging, wants_colours

log = structlog.get_logger()
PLAIN_TIME = re.compile(r"^\d\d:\d\d:\d\d\.\d{3} ")


@pytest.fixture(autouse=True)
def as_before(monkeypatch: Any) -> Iterator[None]:
    """Logging is the process's: leave it as it was, and take no colours from the environment."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    root = logging.getLogger()
    level = root.level
    yield
    structlog.reset_defaults()
    for handler in [handler for handler in root.handlers if isinstance(handler, _FromLibraries)]:
        root.removeHandler(handler)
    root.setLevel(level)


def logged_to(form: Format = "json", level: Level = "info") -> io.StringIO:
    """Logging goes there from now on, and nowhere else."""
    logging.getLogger().handlers.clear()
    stream = io.StringIO()
    configure_logging(form, level, stream=stream)
    return stream


def objects(stream: io.StringIO) -> list[dict[str, Any]]:
    """The JSON lines written."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_have_time_level_and_event_first() -> None:
    """In UTC with milliseconds."""
    stream = logged_to()
    log.info("leading", term=3, lock=Path("/mnt/lock"), sync_set=frozenset({"b", "a"}))
    (line,) = objects(stream)
    assert list(line) == ["timestamp", "level", "event", "term", "lock", "sync_set"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    assert line == {
        "level": "info",
        "event": "leading",
        "term": 3,
        "lock": "/mnt/lock",
        "sync_set": ["a", "b"],
    }


def test_console_lines_are_one_line_of_pairs() -> None:
    """Time, level, event, pairs; in quotes what would not stand on its own."""
    stream = logged_to("console")
    log.warning(
        "push_refused",
        reason="not leader",
        repo="org/app",
        took_s=0.12345678,
        empty="",
        members=("a", "b"),
        refusal=None,
    )
    line = stream.getvalue()
    assert PLAIN_TIME.match(line)
    assert line[13:].split(None, 2)[:2] == ["warning", "push_refused"]
    assert line.endswith(" reason='not leader' repo=org/app took_s=0.123457 empty='' members=a,b\n")


@pytest.mark.parametrize("form", ["console", "json"])
def test_no_value_forges_a_line_or_moves_a_cursor(form: Format) -> None:
    """Names and messages come from clients."""
    stream = logged_to(form)
    try:
        int("a\x1b[2Jb\rc\u202e")
    except ValueError:
        log.exception("failed", repo="x\n12:00:00.000 info forged", command="a\x1b[2Jb\r\udcff\x9b\u202e")
    text = stream.getvalue()
    assert "\n12:00" not in text
    assert all(c.isprintable() or c == "\n" for c in text)
    text.encode()


def test_an_exception_comes_with_its_traceback() -> None:
    """Below the line on the console, within the object in JSON."""
    forms: tuple[Format, ...] = ("console", "json")
    for form in forms:
        stream = logged_to(form)
        try:
            os.environ["GONE"]
        except KeyError:
            log.exception("failed", term=1)
        assert "KeyError: 'GONE'" in stream.getvalue()
        assert ("exception" in objects(stream)[0]) if form == "json" else stream.getvalue().count("\n") > 2


def test_the_level_is_the_least_that_is_written() -> None:
    """And a later call changes it for loggers that exist already."""
    counts: dict[Level, int] = {"debug": 4, "info": 3, "warning": 2, "error": 1}
    for level, count in counts.items():
        stream = logged_to(level=level)
        for method in (log.debug, log.info, log.warning, log.error):
            method("said")
        assert len(objects(stream)) == count


def test_libraries_are_heard_from_warning_on() -> None:
    """Their text becomes a pair; what they say of each connection stays unsaid, at debug too."""
    stream = logged_to(level="debug")
    for name in ("asyncssh", "aiohttp.access"):
        logging.getLogger(name).info("quiet")
        logging.getLogger(name).warning("loud %s", 1)
    try:
        Path("/nonexistent/disk").stat()
    except OSError:
        logging.getLogger("asyncio").exception("task failed")
    first, second, third = objects(stream)
    assert (first["event"], first["logger"], first["message"]) == ("library_message", "asyncssh", "loud 1")
    assert second["level"] == "warning"
    assert (third["level"], "FileNotFoundError" in third["exception"]) == ("error", True)
    assert len(objects(logged_to(level="error"))) == 0


def test_libraries_are_heard_once_after_a_second_call() -> None:
    """Configuring again replaces, and does not add."""
    logged_to()
    stream = logged_to()
    logging.getLogger("asyncssh").warning("once")
    assert len(objects(stream)) == 1
    logged = logged_to(level="error")
    logging.getLogger("asyncssh").warning("not at this level")
    assert logged.getvalue() == ""


def test_what_is_bound_to_a_session_is_on_its_lines() -> None:
    """Contextvars: session id and term are bound once."""
    stream = logged_to()

    async def session(number: int) -> None:
        structlog.contextvars.bind_contextvars(session=number)
        await asyncio.sleep(0)
        log.info("done", number=number)

    async def both() -> None:
        await asyncio.gather(session(1), session(2))

    asyncio.run(both())
    assert [line["session"] == line["number"] for line in objects(stream)] == [True, True]


@pytest.mark.parametrize("value", [{b"x": 1}, float("nan"), object(), b"\xff", {1: {2: 3}}])
def test_odd_values_are_written_somehow(value: object) -> None:
    """A line is never lost, nor the program, for what JSON does not know."""
    stream = logged_to()
    log.info("odd", value=value)
    assert objects(stream)[0]["event"] == "odd"


def test_a_ring_is_written_somehow() -> None:
    """A value that contains itself."""
    ring: list[Any] = []
    ring.append(ring)
    forms: tuple[Format, ...] = ("json", "console")
    for form in forms:
        stream = logged_to(form)
        log.info("odd", value=ring)
        assert "odd" in stream.getvalue()


def test_a_library_with_a_broken_message_harms_nobody() -> None:
    """`logging` promises that; the parts of it are written."""
    stream = logged_to()
    logging.getLogger("asyncssh").warning("%d", "no number")
    assert objects(stream)[0]["message"] == "%d ('no number',)"


def test_a_log_that_is_gone_harms_nobody() -> None:
    """A full disk, a closed terminal, a dead `| head`: lines are lost, the node goes on."""
    stream = logged_to()
    stream.close()
    log.error("into_nothing")
    with open("/dev/full", "w") as full:  # noqa: PTH123 # a device
        configure_logging("json", stream=full)
        log.error("into_nothing")
        full.buffer.raw.close()  # type: ignore[attr-defined] # so that closing does not try again
    configure_logging("auto", stream=stream)


@pytest.mark.parametrize(
    ("environment", "terminal", "wanted"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": ""}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
    ],
)
def test_colours_are_for_terminals_unless_told(
    environment: dict[str, str], *, terminal: bool, wanted: bool
) -> None:
    """NO_COLOR forbids, FORCE_COLOR demands."""
    assert wants_colours(environment, terminal=terminal) == wanted


def test_colours_can_be_asked_for(monkeypatch: Any) -> None:
    """As `stargate demo` does for its children; the text is the same without them."""
    plain = logged_to("console")
    log.error("said", key="value")
    monkeypatch.setenv("FORCE_COLOR", "1")
    coloured = logged_to("console")
    log.error("said", key="value")
    assert "\x1b[31m" in coloured.getvalue()
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured.getvalue())[12:] == plain.getvalue()[12:]


PROGRAM = """
import structlog
from stargate_gate.logs import configure_logging
configure_logging()
structlog.get_logger().info("said", key="value")
print("out")
"""


def test_auto_is_json_in_a_pipe() -> None:
    """On stderr; stdout is left to the program."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True, timeout=60)
    assert json.loads(done.stderr)["event"] == "said"
    assert done.stdout == b"out\n"


def test_auto_is_a_coloured_line_on_a_terminal() -> None:
    """A real one."""
    ours, theirs = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-c", PROGRAM], stderr=theirs, stdout=subprocess.DEVNULL, check=True, timeout=60
        )
        assert select.select([ours], [], [], 10)[0]
        line = os.read(ours, 4096).decode()
    finally:
        os.close(theirs)
        os.close(ours)
    assert "\x1b[32minfo" in line
    assert PLAIN_TIME.match(re.sub(r"\x1b\[[0-9;]*m", "", line))
