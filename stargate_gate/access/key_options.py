"""The options before a key in authorized_keys: sshd(8), AUTHORIZED_KEYS FILE FORMAT. Pure.

If an option restricts a key in a way that Stargate does not support, its line is refused: to ignore the
option would allow more than the operator wrote. Options about things that Stargate never offers (terminals,
forwarding, rc files) are accepted and have no effect.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias, cast

from stargate_gate.access.sources import Sources, parse_sources

UserAccess: TypeAlias = Literal["read", "write", "admin"]

WITHOUT_EFFECT = frozenset(
    {
        "restrict",
        "pty",
        "no-pty",
        "user-rc",
        "no-user-rc",
        "agent-forwarding",
        "no-agent-forwarding",
        "port-forwarding",
        "no-port-forwarding",
        "x11-forwarding",
        "no-x11-forwarding",
    }
)
VALUE_WITHOUT_EFFECT = frozenset({"permitopen", "permitlisten", "tunnel"})
UNSUPPORTED = {
    "command": "command= would replace what the client asks for, and Stargate does not do that",
    "cert-authority": "cert-authority: Stargate does not take certificates",
    "principals": "principals=: Stargate does not take certificates",
}
EXPIRY_FORMATS = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}  # by number of digits


@dataclass(frozen=True)
class KeyOptions:
    """The options of one line. `valid_before` is in UTC."""

    user: str | None = None
    access: UserAccess = "write"
    sources: Sources | None = None
    valid_before: datetime | None = None
    touch_required: bool = True
    verify_required: bool = False


def split_options(line: str) -> tuple[str, str]:
    """`line` as (options, the rest): options end at the first blank outside quotes.

    Raises:
        ValueError: a quote is not closed.
    """
    end, quoted = 0, False
    while end < len(line) and (quoted or line[end] not in " \t"):
        if line[end] == "\\" and line[end + 1 : end + 2] == '"':
            end += 1
        elif line[end] == '"':
            quoted = not quoted
        end += 1
    if quoted:
        raise ValueError("a quote is not closed")
    return line[:end], line[end:].strip()


def parse_options(text: str) -> KeyOptions:
    """All options of one line.

    Raises:
        ValueError: an option is unknown, unsupported or damaged, or it contradicts another.
    """
    reader = _Reader()
    for name, value in _options(text):
        reader.take(name, value)
    return KeyOptions(
        user=reader.environment.get("STARGATE_USER"),
        access=_access(reader.environment.get("STARGATE_ACCESS", "write")),
        sources=reader.sources,
        valid_before=reader.valid_before,
        touch_required=not reader.no_touch_required,
        verify_required=reader.verify_required,
    )


class _Reader:
    """Collects options one by one."""

    def __init__(self) -> None:
        self.environment: dict[str, str] = {}
        self.sources: Sources | None = None
        self.valid_before: datetime | None = None
        self.no_touch_required = False
        self.verify_required = False

    def take(self, name: str, value: str | None) -> None:
        """The next option. `name` is in lower case.

        Raises:
            ValueError: as `parse_options`.
        """
        if name in UNSUPPORTED:
            raise ValueError(UNSUPPORTED[name])
        if value is None:
            self._take_flag(name)
        elif name == "environment":
            self._take_environment(value)
        elif name == "from":
            if self.sources is not None:
                raise ValueError("from= is there twice")
            self.sources = parse_sources(value)
        elif name == "expiry-time":
            expiry = parse_expiry(value)
            self.valid_before = min(expiry, self.valid_before or expiry)
        elif name not in VALUE_WITHOUT_EFFECT:
            raise ValueError(f"the option {name}= is not known")

    def _take_flag(self, name: str) -> None:
        if name == "no-touch-required":
            self.no_touch_required = True
        elif name == "verify-required":
            self.verify_required = True
        elif name not in WITHOUT_EFFECT:
            raise ValueError(f"the option {name!r} is not known, or lacks its value")

    def _take_environment(self, value: str) -> None:
        name, equals, content = value.partition("=")
        if not equals or not name:
            raise ValueError(f"environment={value!r} is not NAME=value")
        if not name.upper().startswith("STARGATE_"):
            return  # without effect: git does not get the environment of a key
        if name not in {"STARGATE_USER", "STARGATE_ACCESS"}:
            raise ValueError(f"the variable {name} is not known; there are STARGATE_USER and STARGATE_ACCESS")
        if name in self.environment:
            raise ValueError(f"{name} is set twice")
        if not content:
            raise ValueError(f"{name} is empty")
        self.environment[name] = content


def parse_expiry(text: str) -> datetime:
    """The value of `expiry-time=`, in UTC: YYYYMMDD[HHMM[SS]], local time unless a Z follows.

    Raises:
        ValueError: it does not have this form, or there is no such time.
    """
    digits, zone = (text[:-1], UTC) if text[-1:] in {"Z", "z"} else (text, None)
    form = EXPIRY_FORMATS.get(len(digits))
    if form is None or not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"expiry-time={text!r} is not YYYYMMDD[HHMM[SS]][Z]")
    try:
        # Without a zone astimezone assumes local time, as sshd does.
        return datetime.strptime(digits, form).replace(tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"expiry-time={text!r} is no time that exists") from error


def _access(word: str) -> UserAccess:
    if word not in {"read", "write", "admin"}:
        raise ValueError(f"STARGATE_ACCESS={word!r} is not read, write or admin")
    return cast("UserAccess", word)


def _options(text: str) -> Iterator[tuple[str, str | None]]:
    """(name in lower case, value without its quotes) of each comma-separated option."""
    rest = text
    while rest:
        name = rest[: next((i for i, c in enumerate(rest) if c in ',="'), len(rest))]
        rest = rest[len(name) :]
        value = None
        if rest.startswith("="):
            value, rest = _quoted(rest[1:], name)
        if not name or (rest and (not rest.startswith(",") or rest == ",")):
            raise ValueError("the options before the key cannot be read")
        yield name.lower(), value
        rest = rest[1:]


def _quoted(text: str, name: str) -> tuple[str, str]:
    """The value in double quotes at the beginning of `text`, and the rest. Only a quote can be escaped."""
    if not text.startswith('"'):
        raise ValueError(f"the value of {name}= is not in double quotes")
    end = 1
    while text[end : end + 1] not in {'"', ""}:
        end += 2 if text.startswith('\\"', end) else 1
    return text[1:end].replace('\\"', '"'), text[end + 1 :]
