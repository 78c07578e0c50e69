"""What pydantic says about a file, in an operator's words; and the file as if it had been right there."""

import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from stargate_gate.config.findings import Finding, KeyPath, dotted, without_index
from stargate_gate.config.model import Config
from stargate_gate.config.values import kind_of

CLOSE = 0.7  # of difflib's 0..1: a few letters wrong

# Stand in for required keys that are missing or wrong, so that the rest of the file is judged as well.
_STAND_INS: Mapping[KeyPath, Any] = {
    ("cluster", "name"): "stand-in",
    ("cluster", "address"): "stand-in.invalid:1",
    ("cluster", "key"): "/nonexistent/stand-in",
}

_WANTED = {
    "float_type": "a number",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "string_type": "text",
    "literal_error": "one of {expected}",
    "model_type": "a mapping of keys and values",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than_equal": "at most {le:g}",
    "finite_number": "a finite number",
}


def known_keys() -> dict[KeyPath, type[BaseModel] | None]:
    """Every key of the model, sections before what is in them; the value is a section's model, else None."""
    found: dict[KeyPath, type[BaseModel] | None] = {}

    def visit(model: type[BaseModel], above: KeyPath) -> None:
        for name, field in model.model_fields.items():
            section = _section(field.annotation)
            found[(*above, name)] = section
            if section is not None:
                visit(section, (*above, name))

    visit(Config, ())
    return found


def _section(annotation: Any) -> type[BaseModel] | None:
    choices = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return next((c for c in choices if isinstance(c, type) and issubclass(c, BaseModel)), None)


def findings_of(error: ValidationError, data: Mapping[str, Any]) -> list[Finding]:
    """What pydantic found in `data`; a key that is missing because it is misspelt is one problem."""
    errors = error.errors(include_url=False)
    findings = [_finding(details, data) for details in errors]
    misspelt = {finding.meant for finding in findings if finding.meant}
    return [
        finding
        for details, finding in zip(errors, findings, strict=True)
        if not (details["type"] == "missing" and finding.key in misspelt)
    ]


def _finding(error: ErrorDetails, data: Mapping[str, Any]) -> Finding:
    key = _key_in_file(error["loc"], data)
    context = error.get("ctx", {})
    kind = error["type"]
    if kind == "extra_forbidden":
        return _unknown_key(key)
    if kind == "missing":
        return Finding(key, f"is required: {_description(key)}")
    if kind == "value_error":
        return Finding(key, str(context["error"]))
    wanted = _WANTED.get(kind)
    if wanted is None:
        return Finding(key, f"is wrong: {error['msg']}; see docs/configuration.md")
    return Finding(key, f"must be {wanted.format(**context)}, but is {kind_of(error['input'])}{_hint(error)}")


def _key_in_file(loc: Iterable[str | int], data: Any) -> KeyPath:
    """`loc` as the file has it: the model's ssh.listen[0] may be a plain ssh.listen there."""
    key: KeyPath = ()
    for part in loc:
        if isinstance(part, int) and not isinstance(data, list):
            break
        key = (*key, part)
        if isinstance(data, dict):
            data = data.get(str(part))
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
    return key


def _hint(error: ErrorDetails) -> str:
    kind, value = error["type"], error["input"]
    hint = "change it"
    if value is None:
        hint = "write a value or remove the key"
    elif kind in {"float_type", "int_type"} and isinstance(value, str):
        number = re.fullmatch(r"[0-9]+(\.[0-9]+)?", value)
        hint = f"write {value} without quotes" if number else "write digits only, without a unit"
    elif kind == "bool_type":
        hint = "write one of these two words, without quotes"
    elif kind == "model_type":
        hint = "write its keys below it, indented"
    elif kind == "less_than_equal" and str(error["loc"][-1]).endswith("_s"):
        hint = "the unit is seconds"
    return f"; {hint}"


def _description(key: KeyPath) -> str:
    *above, name = key
    model: type[BaseModel] = known_keys()[tuple(above)] or Config if above else Config
    return model.model_fields[str(name)].description or "see docs/configuration.md"


def _unknown_key(key: KeyPath) -> Finding:
    *above, name = key
    known = known_keys()
    siblings = [str(k[-1]) for k in known if k[:-1] == tuple(above)]
    elsewhere = " or ".join(f"'{dotted(k)}'" for k in known if k[-1] == name)
    if elsewhere:
        return Finding(key, f"unknown key here; did you mean {elsewhere}?")
    spelling = str(name).lower().replace("-", "_")
    for meant in difflib.get_close_matches(spelling, siblings, n=1, cutoff=CLOSE):
        return Finding(key, f"unknown key; did you mean '{meant}'?", meant=(*above, meant))
    return Finding(key, f"unknown key; remove it, the keys here are {', '.join(siblings)}")


def repaired(data: Mapping[str, Any], findings: Iterable[Finding]) -> dict[str, Any]:
    """`data` without the wrong keys: a default takes their place, or a stand-in where there is none."""
    whole = {name: _copied(value) for name, value in data.items()}
    wrong = {without_index(key) for finding in findings for key in (finding.key, finding.meant) if key}
    for key in sorted(wrong, key=len, reverse=True):
        above: Any = whole
        for part in key[:-1]:
            above = above.get(part) if isinstance(above, dict) else None
        if not isinstance(above, dict):
            continue
        above.pop(key[-1], None)
        if key in _STAND_INS:
            above[key[-1]] = _STAND_INS[key]
    return whole


def _copied(value: Any) -> Any:
    """Mappings copied two levels deep, which is as deep as sections go."""
    if not isinstance(value, dict):
        return value
    return {name: dict(inner) if isinstance(inner, dict) else inner for name, inner in value.items()}
