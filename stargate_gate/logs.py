"""One line on stderr for each thing worth knowing: readable on a terminal, JSON for everything else.

Times are UTC with milliseconds. What the libraries say through `logging` comes the same way, from
warning on. A line that cannot be written is lost; it never ends the program.
"""

import contextlib
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import structlog

from stargate_gate.printable import escaped

Format = Literal["auto", "console", "json"]
Level = Literal["debug", "info", "warning", "error"]
Event = MutableMapping[str, Any]

LIBRARY_LEVEL = logging.WARNING  # libraries tell about every connection below that
EVENT_WIDTH = 26  # longer event names push their pairs to the right

_LEVEL_COLOURS: Mapping[str, str] = {
    "debug": "\x1b[2m",
    "info": "\x1b[32m",
    "warning": "\x1b[33m",
    "error": "\x1b[31m",
    "critical": "\x1b[1;31m",
}
_DIM, _BOLD, _KEY, _RESET = "\x1b[2m", "\x1b[1m", "\x1b[36m", "\x1b[0m"


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
            structlog.processors.format_exc_info,
            _renderer(format, target, os.environ),
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


def console_line(event: Event, *, colours: bool) -> str:
    """`14:03:07.123 info    event_name   key=value …`, and a traceback below it if there is one.

    Keys without a value (None) are left out: people read this. JSON has them, as null.
    """
    now, level, name = _now(), str(event.pop("level", "info")), _shown(event.pop("event", ""))
    details = [_traceback(str(event.pop(key))) for key in ("exception", "stack") if event.get(key)]

    def painted(text: str, colour: str) -> str:
        return f"{colour}{text}{_RESET}" if colours else text

    pairs = " ".join(
        f"{painted(f'{key}=', _KEY)}{_shown(value)}" for key, value in event.items() if value is not None
    )
    head = [
        painted(now.strftime("%H:%M:%S.") + f"{now.microsecond // 1000:03d}", _DIM),
        painted(f"{level:<7}", _LEVEL_COLOURS.get(level, "")),
        painted(f"{name:<{EVENT_WIDTH}}" if pairs else name, _BOLD),
    ]
    return "\n".join([" ".join([*head, pairs]).rstrip(), *details])


def json_line(event: Event) -> str:
    """One JSON object: timestamp, level, event, then the pairs. What JSON does not know becomes text."""
    stamp = _now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
    ordered = {
        "timestamp": stamp,
        "level": event.pop("level", "info"),
        "event": event.pop("event", ""),
        **event,
    }
    try:
        return json.dumps(ordered, default=_for_json, allow_nan=False)
    except (TypeError, ValueError, RecursionError):  # keys that are no text, NaN, rings
        return json.dumps({str(key): str(value) for key, value in ordered.items()})


def _for_json(value: object) -> object:
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else str(value)


def _renderer(
    format: Format,  # noqa: A002 - the key's name in the YAML file
    stream: TextIO,
    environment: Mapping[str, str],
) -> structlog.typing.Processor:
    terminal = _is_terminal(stream)
    if format == "json" or (format == "auto" and not terminal):
        return lambda _logger, _method, event: json_line(event)
    colours = wants_colours(environment, terminal=terminal)
    return lambda _logger, _method, event: console_line(event, colours=colours)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def _now() -> datetime:
    return datetime.now(UTC)


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


def _traceback(text: str) -> str:
    """The lines of `text`, each made safe to show."""
    return "\n".join(map(escaped, text.splitlines()))


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
