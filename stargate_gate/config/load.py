"""Loads a YAML file as a Config, or reports all of its problems at once."""

import codecs
import errno
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stargate_gate.aio.foreign_files import read_regular
from stargate_gate.config.document import Document, read_document
from stargate_gate.config.files import broken_files
from stargate_gate.config.findings import Finding, dotted, without_consequences
from stargate_gate.config.location import MAX_FILE_BYTES, config_path
from stargate_gate.config.mistakes import findings_of, repaired
from stargate_gate.config.model import Config
from stargate_gate.config.rules import broken_rules
from stargate_gate.errors import ConfigurationError


def load_config(path: Path | None = None) -> Config:
    """Read the YAML file `path`, else $STARGATE_CONFIG, else use the defaults: a single node on loopback.

    Relative paths in the file start from its folder, `~` is expanded. The files that it names are not
    checked: see `load_checked_config`.

    Raises:
        ConfigurationError: every problem, each as "file:line: key.path: what is wrong; remedy".
    """
    return _accepted(_judged(config_path(path)))


def load_checked_config(path: Path | None = None, *, shared_volume: bool = True) -> Config:
    """As `load_config`, and check the files and folders that it names.

    With `shared_volume` false, the volume of the leader lock is not checked. A node starts without it and
    serves reads; a missing volume is not an error in the file.

    Raises:
        ConfigurationError: every problem of both kinds.
    """
    judged = _judged(config_path(path))
    files = broken_files(judged.config, shared_volume=shared_volume) if judged.config is not None else []
    return _accepted(judged.with_derived(files))


@dataclass(frozen=True)
class _Judged:
    """A file with its problems.

    `config` has defaults in place of wrong values; None if nothing could be read.
    """

    name: str
    document: Document
    config: Config | None
    findings: tuple[Finding, ...]

    def with_derived(self, derived: list[Finding]) -> "_Judged":
        more = without_consequences(derived, self.findings)
        return _Judged(self.name, self.document, self.config, (*self.findings, *more))

    def problems(self) -> list[str]:
        placed = [(f.line or self.document.line(f.key), f) for f in self.findings]
        placed.sort(key=lambda pair: pair[0])
        return list(dict.fromkeys(self._line(line, finding) for line, finding in placed))

    def _line(self, line: int, finding: Finding) -> str:
        where = f"{self.name}:{line}" if self.document.lines or finding.line else self.name
        return ": ".join(part for part in (where, dotted(finding.key), finding.text) if part)


def _accepted(judged: _Judged) -> Config:
    if judged.findings or judged.config is None:
        raise ConfigurationError(judged.problems())
    return judged.config


def _judged(path: Path | None) -> _Judged:
    if path is None:
        return _judge("defaults", Document({}), Path("/"))
    document = read_document(_text_of(path))
    return _judge(str(path), document, path.absolute().parent)


def _text_of(path: Path) -> str:
    try:
        content, _ = read_regular(path, MAX_FILE_BYTES)
    except FileNotFoundError:
        raise ConfigurationError([f"{path}: there is no such file; name the node's YAML file"]) from None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.EFBIG:
            large = f"{path}: is larger than {MAX_FILE_BYTES} bytes; name the node's YAML file"
            raise ConfigurationError([large]) from None
        reason = error.strerror if isinstance(error, OSError) else "no valid path"
        raise ConfigurationError(
            [f"{path}: cannot be read ({reason}); name a YAML file this user can read"]
        ) from None
    if _is_utf_16(content):
        raise ConfigurationError([f"{path}: is UTF-16, as some editors on Windows save it; save it as UTF-8"])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError([f"{path}:{line}: is not UTF-8; save it as UTF-8"]) from None


def _is_utf_16(content: bytes) -> bool:
    """It has a byte order mark, or letters have a zero byte."""
    marks = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return content.startswith(marks) or b"\0" in content[:2]


def _judge(name: str, document: Document, base: Path) -> _Judged:
    if document.findings and not document.lines:
        return _Judged(name, document, None, document.findings)
    # Three kinds of problems: what is no YAML value (document), what is no value of the model (mistakes), and
    # what rules about several keys refuse. A later kind is left out where an earlier one has the same key.
    config, mistakes = _validated(document.data, base)
    unread = {finding.key for finding in document.findings}
    findings = (*document.findings, *(mistake for mistake in mistakes if mistake.key not in unread))
    judged = _Judged(name, document, config, findings)
    return judged.with_derived(broken_rules(config)) if config is not None else judged


def _validated(data: Mapping[str, Any], base: Path) -> tuple[Config | None, list[Finding]]:
    """The model of `data`, with defaults in place of wrong values, and the problems."""
    context = {"base": base}
    data = {"node": {}, **data}  # pydantic leaves the section's name out for defaults of a default
    try:
        return Config.model_validate(data, context=context), []
    except ValidationError as error:
        findings = findings_of(error, data)
    try:
        without = repaired(data, findings)
        return Config.model_validate(without, context=context), findings
    except ValidationError:
        return None, findings  # a default is wrong itself, for example an invalid host name
