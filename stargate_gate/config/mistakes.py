"""Turns pydantic's errors into messages for operators, and replaces wrong values by defaults."""

import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from stargate_gate.config.address import ITEM_KINDS
from stargate_gate.config.findings import Finding, KeyPath, dotted, without_index
from stargate_gate.config.model import Config
from stargate_gate.config.values import kind_of

CLOSE = 0.7  # difflib's similarity, 0 to 1: a few letters may be wrong

# Used for required keys that are missing or wrong, so that the rest of the file is checked as well.
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
    "model_attributes_type": "a mapping of keys and values",
    "too_short": "at least {min_length} long",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than_equal": "at most {le:g}",
    "finite_number": "a finite number",
}


def known_keys() -> dict[KeyPath, type[BaseModel] | None]:
    """Every key of the model, sections before their keys. The value is a section's model, else None."""
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
    """The problems that pydantic found in `data`. A misspelt key is not reported as missing as well."""
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
        return _unknown_key(key, _model_of(error["loc"]))
    if kind == "missing":
        description = _model_of(error["loc"]).model_fields[str(key[-1])].description
        return Finding(key, f"is required: {description or 'see docs/configuration.md'}")
    if kind in {"union_tag_not_found", "union_tag_invalid"}:
        return _wrong_kind(key, error["input"])
    if kind == "value_error":
        return Finding(key, str(context["error"]))
    wanted = _WANTED.get(kind)
    if wanted is None:
        return Finding(key, f"is wrong: {error['msg']}; see docs/configuration.md")
    return Finding(key, f"must be {wanted.format(**context)}, but is {kind_of(error['input'])}{_hint(error)}")


def _key_in_file(loc: Iterable[str | int], data: Any) -> KeyPath:
    """The key in the file for pydantic's `loc`: the model's ssh.listen[0] may be ssh.listen in the file.

    For an item of a list, pydantic has its kind after the index; the file does not.
    """
    key: KeyPath = ()
    in_list = False
    for part in loc:
        if isinstance(part, int) and not isinstance(data, list):
            break
        if in_list and part in ITEM_KINDS:
            in_list = False
            continue
        in_list = isinstance(part, int)
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
    elif kind == "too_short":
        hint = "write at least one"
    elif kind in {"model_type", "model_attributes_type"}:
        hint = "write its keys below it, indented"
    elif kind == "less_than_equal" and str(error["loc"][-1]).endswith("_s"):
        hint = "the unit is seconds"
    return f"; {hint}"


def _model_of(loc: Sequence[str | int]) -> type[BaseModel]:
    """The model that the last key of `loc` belongs to, or would belong to."""
    kind = loc[2] if len(loc) > 3 and isinstance(loc[1], int) else None  # noqa: PLR2004 - section, index, kind, key
    if kind in ITEM_KINDS:
        return ITEM_KINDS[str(kind)]
    return known_keys()[tuple(loc[:-1])] or Config if loc[:-1] else Config


def _wrong_kind(item: KeyPath, value: Mapping[str, Any]) -> Finding:
    """The problem of an item of `address` without a valid kind."""
    choices = _choices(ITEM_KINDS)
    if "kind" not in value:
        return Finding((*item, "kind"), f"is required: one of {choices}")
    return Finding((*item, "kind"), f"must be one of {choices}, but is {kind_of(value['kind'])}; change it")


def _choices(words: Iterable[str]) -> str:
    *others, last = (repr(word) for word in words)
    return f"{', '.join(others)} or {last}"


def _unknown_key(key: KeyPath, model: type[BaseModel]) -> Finding:
    *above, name = key
    elsewhere = " or ".join(f"'{dotted(k)}'" for k in known_keys() if k[-1] == name)
    if elsewhere:
        return Finding(key, f"unknown key here; did you mean {elsewhere}?")
    spelling = str(name).lower().replace("-", "_")
    for meant in difflib.get_close_matches(spelling, model.model_fields, n=1, cutoff=CLOSE):
        return Finding(key, f"unknown key; did you mean '{meant}'?", meant=(*above, meant))
    siblings = ", ".join(model.model_fields)
    return Finding(key, f"unknown key; remove it, the keys here are {siblings}")


def repaired(data: Mapping[str, Any], findings: Iterable[Finding]) -> dict[str, Any]:
    """`data` without the wrong keys, so that defaults are used; a required key gets a stand-in."""
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
