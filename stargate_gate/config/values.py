"""What the models of the YAML file are made of: the base class of a mapping, and types of values.

Each reader takes the value from YAML and raises ValueError with "what is wrong; what to write instead".
"""

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    model_validator,
)

from stargate_gate.config.endpoint import Endpoint

MAX_PATH_LENGTH = 4095  # PATH_MAX of Linux without the final NUL
MAX_BRANCH_BYTES = 200  # leaves room for refs/heads/ and .lock in a file name of 255 bytes
MAX_LISTEN = 100  # addresses; no machine listens on more
MIN_PERIOD_S = 0.01  # shorter periods would keep a processor busy
MAX_PERIOD_S = 86_400.0  # a day; a larger number probably means milliseconds
MAX_TRASH_DAYS = 36_500.0

MAX_SHOWN_BITS = 64  # Python refuses to print integers with thousands of digits

_CONTAINERS: dict[type, str] = {list: "a list", tuple: "a list", dict: "a mapping"}
IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
IpInterface: TypeAlias = ipaddress.IPv4Interface | ipaddress.IPv6Interface
IpNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_NOT_IN_REFS = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|$)")


class Section(BaseModel):
    """A mapping in the YAML file. An empty one has all defaults."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _empty_means_defaults(cls, value: Any) -> Any:
        return {} if value is None else value


def search_path() -> str:
    """Where programs without a path are searched: PATH, and the folders of administrators' programs."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def kind_of(value: object) -> str:
    """The kind of a YAML value for a message, with the value if it is short."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return f"the truth value {str(value).lower()}"
    if isinstance(value, str):
        return f"the text {shortened(value)!r}"
    if isinstance(value, int | float):
        huge = isinstance(value, int) and value.bit_length() > MAX_SHOWN_BITS
        return "a huge number" if huge else f"the number {value}"
    return _CONTAINERS.get(type(value), f"a {type(value).__name__}")


def shortened(text: str) -> str:
    """At most 60 characters of `text`, for messages."""
    limit = 60
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        hint = "; put it in quotes" if isinstance(value, bool | int | float) else ""
        raise ValueError(f"must be {what}, but is {kind_of(value)}{hint}")  # noqa: TRY004 - pydantic collects ValueErrors
    return value


def read_endpoint(value: object) -> Endpoint:
    """An Endpoint from a `host:port` text; an Endpoint is returned as it is."""
    return value if isinstance(value, Endpoint) else Endpoint.parse(_text(value, "'host:port'"))


def read_reachable_endpoint(value: object) -> Endpoint:
    """An endpoint that others can connect to: no wildcard, no port 0."""
    endpoint = read_endpoint(value)
    if endpoint.is_wildcard:
        raise ValueError(f"nobody can connect to '{endpoint}'; write the name or address that others use")
    if endpoint.port == 0:
        raise ValueError("port 0 means any port, which nobody can connect to; write the real one")
    return endpoint


def one_or_many(value: object) -> object:
    """A list; a text is a list with one item."""
    if isinstance(value, str | Endpoint):
        return (value,)
    if isinstance(value, list | tuple):
        if not value:
            raise ValueError("nothing to listen on; write at least one 'host:port'")
        if len(value) > MAX_LISTEN:
            raise ValueError(f"has {len(value)} addresses; write at most {MAX_LISTEN}")
        return tuple(value)
    raise ValueError(f"must be 'host:port' or a list of them, but is {kind_of(value)}")


def read_list(value: object) -> object:
    """A YAML list as a tuple, since the model is frozen."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be a list, but is {kind_of(value)}; write it in brackets: [...]")  # noqa: TRY004 - as above
    return tuple(value)


def read_path(value: object, info: ValidationInfo) -> Path:
    """A path: `~` is expanded, a relative one starts from the YAML file's folder (`context["base"]`)."""
    text = str(value) if isinstance(value, Path) else _text(value, "a path")
    if "\n" in text or " PRIVATE KEY" in text:  # refused first, so that no message shows it
        raise ValueError("holds a key or several lines; write the path of a file, and the key into that file")
    if not text or "\0" in text or len(text) > MAX_PATH_LENGTH:
        raise ValueError(f"{shortened(text)!r} cannot be a path; write an absolute path")
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise ValueError(f"{shortened(text)!r}: that home is not known; write an absolute path") from None
    if path.is_absolute():
        return path
    base: Path = (info.context or {}).get("base") or Path.cwd()
    return base / path


def read_name(value: object) -> str:
    """The name of a node or a cluster, as it is used in records, messages, metrics and log lines."""
    text = _text(value, "a name")
    if not _NAME.fullmatch(text):
        raise ValueError(
            f"{shortened(text)!r} cannot be a name; write 1 to 63 letters, digits, '.', '_' or '-', "
            "with a letter or digit first and last"
        )
    return text


def read_branch(value: object) -> str:
    """A branch name that git accepts (git-check-ref-format(1)), without refs/heads/."""
    text = _text(value, "a branch name")
    bad_edge = text.startswith(("-", ".", "/", "refs/")) or text.endswith((".", "/"))
    too_long = len(text.encode(errors="replace")) > MAX_BRANCH_BYTES
    if not text or text in {"@", "HEAD"} or bad_edge or too_long or _NOT_IN_REFS.search(text):
        raise ValueError(f"{shortened(text)!r} is no branch name for git; write one as in 'main'")
    return text


def read_network(value: object) -> IpNetwork:
    """An address or a network, as in 10.0.0.5 or 10.0.0.0/24."""
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    text = _text(value, "an address or a network")
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        why = "has bits set after its length" if "host bits" in str(error) else "is no address and no network"
        raise ValueError(f"{shortened(text)!r} {why}; write one as in '10.0.0.5' or '10.0.0.0/24'") from None


Name = Annotated[str, PlainValidator(read_name)]
Branch = Annotated[str, PlainValidator(read_branch)]
LocalPath = Annotated[Path, PlainValidator(read_path)]
LocalPaths = Annotated[tuple[LocalPath, ...], BeforeValidator(read_list)]
Reachable = Annotated[Endpoint, PlainValidator(read_reachable_endpoint)]
Listen = Annotated[
    tuple[Annotated[Endpoint, PlainValidator(read_endpoint)], ...], BeforeValidator(one_or_many)
]
Networks = Annotated[
    tuple[Annotated[IpNetwork, PlainValidator(read_network)], ...], BeforeValidator(read_list)
]
Period = Annotated[float, Field(ge=MIN_PERIOD_S, le=MAX_PERIOD_S)]  # seconds
Wait = Annotated[float, Field(ge=0, le=MAX_PERIOD_S)]  # seconds; 0: do not wait
Count = Annotated[int, Field(ge=1, le=100_000)]
