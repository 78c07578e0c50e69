"""One line on stderr for each thing worth knowing: readable on a terminal, JSON for everything else.

structlog makes the lines; what is here says what is on them. Times are UTC with milliseconds. What libraries
say through `logging` comes the same way, from warning on. A line that cannot be written is lost; it never
ends the program.
"""

import contextlib
import io
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import structlog
from structlog.dev import (
    BRIGHT,
    CYAN,
    DIM,
    GREEN,
    RED,
    RESET_ALL,
    YELLOW,
    Column,
    ConsoleRenderer,
    KeyValueColumnFormatter,
    plain_traceback,
)

from stargate_gate.printable import escaped

Format = Literal["auto", "console", "json"]
Level = Literal["debug", "info", "warning", "error"]
Event = MutableMapping[str, Any]

LIBRARY_LEVEL = logging.WARNING  # libraries tell about every connection below that
EVENT_WIDTH = 26  # longer event names push their pairs to the right
LEVEL_WIDTH = 7
TIME_OF_DAY = slice(11, 23)  # of a timestamp, as the console shows it

LEVEL_COLOURS = {"debug": DIM, "info": GREEN, "warning": YELLOW, "error": RED, "critical": BRIGHT + RED}


def configure_logging(
    format: Format = "auto",  # noqa: A002 # the key's name in the YAML file
    level: Level = "info",
    *,
    stream: TextIO | None = None,
) -> None:
    """Send everything that is logged to `stream` (default: stderr). May be called again.

    "auto" is "console" if the stream is a terminal, else "json". The console has colours on a
    terminal, or if $FORCE_COLOR is set; never if $NO_COLOR is (no-color.org).
    """
    target = sys.stderr if stream is None else stream
    number = getattr(logging, level.upper())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.StackInfoRenderer(),
            _in_order,
            *_renderers(format, target, os.environ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=_Lines(target),
        cache_logger_on_first_use=False,  # module-level loggers must follow a later call
    )
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _FromLibraries)]:
        root.removeHandler(handler)
    root.addHandler(_FromLibraries(LIBRARY_LEVEL))
    root.setLevel(max(LIBRARY_LEVEL, number))


def wants_colours(environment: Mapping[str, str], *, terminal: bool) -> bool:
    """Whether to colour: $NO_COLOR forbids, $FORCE_COLOR demands, else terminals that can."""
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR"):
        return True
    return terminal and environment.get("TERM") != "dumb"


def _in_order(_logger: object, _method: str, event: Event) -> Event:
    """The timestamp, the level and the event come first."""
    stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    level, name = event.pop("level", "info"), event.pop("event", "")
    return {"timestamp": stamp, "level": level, "event": name, **event}


def _renderers(
    format: Format,  # noqa: A002 # as in configure_logging
    stream: TextIO,
    environment: Mapping[str, str],
) -> list[structlog.typing.Processor]:
    terminal = _is_terminal(stream)
    if format == "json" or (format == "auto" and not terminal):
        json_line = structlog.processors.JSONRenderer(_dumps, default=_for_json)
        return [structlog.processors.format_exc_info, json_line]
    return [_console(colours=wants_colours(environment, terminal=terminal))]


def _console(*, colours: bool) -> ConsoleRenderer:
    """`14:03:07.123 info    event_name   key=value …`, and a traceback below it if there is one.

    Keys without a value (None) are left out: people read this. JSON has them, as null.
    """
    dim, bright, cyan, reset = (DIM, BRIGHT, CYAN, RESET_ALL) if colours else ("", "", "", "")
    pair = KeyValueColumnFormatter(cyan, "", reset, _shown)

    def default(key: str, value: object) -> str:
        return "" if value is None else pair(key, value)

    def level(key: str, value: object) -> str:
        colour = LEVEL_COLOURS.get(str(value), "") if colours else ""
        return KeyValueColumnFormatter(None, colour, reset, str, width=LEVEL_WIDTH)(key, value)

    return ConsoleRenderer(
        columns=[
            Column("", default),
            Column("timestamp", KeyValueColumnFormatter(None, dim, reset, lambda at: str(at)[TIME_OF_DAY])),
            Column("level", level),
            Column("event", KeyValueColumnFormatter(None, bright, reset, _shown, width=EVENT_WIDTH)),
        ],
        sort_keys=False,
        exception_formatter=_traceback,
    )


def _traceback(to: TextIO, error: structlog.typing.ExcInfo) -> None:
    """Its messages may come from clients, so each line is made safe to show."""
    text = io.StringIO()
    plain_traceback(text, error)
    to.write("\n" + "\n".join(map(escaped, text.getvalue().strip("\n").splitlines())))


def _dumps(event: Event, **options: Any) -> str:
    """As json.dumps; what JSON does not know becomes text, so that no line is lost for it."""
    try:
        return json.dumps(event, allow_nan=False, **options)
    except (TypeError, ValueError, RecursionError):  # keys that are no text, NaN, rings
        return json.dumps({str(key): str(value) for key, value in event.items()})


def _for_json(value: object) -> object:
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else str(value)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def _shown(value: object) -> str:
    """A value on one line, in quotes where it could be taken for something else."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple | set | frozenset):
        return ",".join(_quoted(str(item)) for item in value) or "()"
    return _quoted(str(value))


def _quoted(text: str) -> str:
    plain = text.isprintable() and text and not any(c in text for c in " \"'=")
    return text if plain else repr(text)


class _Lines:
    """structlog's innermost logger, and the factory that hands it out: whole lines onto a stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self.debug = self.info = self.warning = self.error = self.critical = self._write
        self.exception = self.fatal = self.msg = self.log = self._write

    def __call__(self, *_args: object) -> "_Lines":
        return self

    def _write(self, line: str) -> None:
        with self._lock, contextlib.suppress(OSError, ValueError):  # full, closed, gone
            self._stream.write(f"{line}\n")
            self._stream.flush()


class _FromLibraries(logging.Handler):
    """Passes what libraries log through `logging` on to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        """Never raises, as `logging` asks."""
        log = structlog.get_logger()
        report: Callable[..., None] = log.error if record.levelno >= logging.ERROR else log.warning
        report("library_message", logger=record.name, message=_message(record), exc_info=record.exc_info)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, LookupError):  # the library's own format string is broken
        return f"{record.msg} {record.args!r}"
