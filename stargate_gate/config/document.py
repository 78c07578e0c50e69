"""Reads YAML text into plain values, with the line of each.

It reads PyYAML's nodes itself instead of using PyYAML's constructor: for the lines, for keys that occur twice
(PyYAML silently drops one), and so that no tag can create anything but plain values.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from stargate_gate.config.findings import Finding, KeyPath
from stargate_gate.config.values import shortened

_PLAIN_MAPPING = "tag:yaml.org,2002:map"
_PLAIN_LIST = "tag:yaml.org,2002:seq"
MAX_DEPTH = 20  # mappings and lists in each other; the model has four
MAX_VALUES = 2000  # keys and values; PyYAML reads some thousand a second
_NUMBERS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("int", "float"))
_OCTAL = re.compile(r"[-+]?0[0-9_]+")  # YAML 1.1, and PyYAML: 020 is 16
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(:[0-9]{1,2})+(\.[0-9_]*)?")  # likewise: 3:20 is 200
_SCALARS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "timestamp"))


@dataclass(frozen=True)
class Document:
    """The content of a YAML file. `data` is what could be read; `findings` is what could not."""

    data: Mapping[str, Any]
    findings: tuple[Finding, ...] = ()
    lines: Mapping[KeyPath, int] = field(default_factory=dict)

    def line(self, key: KeyPath) -> int:
        """The line (from 1) of `key`, or of the nearest key above it that is in the file."""
        while key and key not in self.lines:
            key = key[:-1]
        return self.lines.get(key, 1)


def read_document(text: str) -> Document:
    """Read YAML. Never raises: broken syntax is a finding, with no data."""
    try:
        root = yaml.compose(text, Loader=_Bounded)
    except yaml.MarkedYAMLError as error:
        return _broken(_syntax_problem(error), error.problem_mark or error.context_mark)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        finding = Finding((), f"character {error.character!r} is not allowed in YAML; remove it", line=line)
        return Document({}, (finding,))
    except _TooMuchError as error:
        return _broken(f"{error}; keep to the keys in docs/configuration.md", error.mark)
    if root is None or _is_empty(root):
        return _broken("is empty; write at least 'node: {}' for a single node with all defaults", None)
    if not isinstance(root, yaml.MappingNode):
        return _broken(
            "is not a mapping; write keys and values, as in 'node: {name: node-a}'", root.start_mark
        )
    reader = _Reader()
    data = reader.mapping(root, ())
    return Document(data, tuple(reader.findings), reader.lines)


class _TooMuchError(Exception):
    """The text is larger or deeper than any configuration."""

    def __init__(self, problem: str, mark: yaml.Mark) -> None:
        super().__init__(problem)
        self.mark = mark


class _Bounded(yaml.SafeLoader):
    """A loader that stops at sizes that no configuration has, before it takes too much time or stack."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """One value with all that is in it."""
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call] # of PyYAML
        self._values += 1
        if self._values > MAX_VALUES:
            raise _TooMuchError(f"has more than {MAX_VALUES} keys and values", mark)
        if self._depth > MAX_DEPTH:
            raise _TooMuchError("is nested too deeply", mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.value == "" and not node.style


def _broken(text: str, mark: yaml.Mark | None) -> Document:
    return Document({}, (Finding((), text, line=mark.line + 1 if mark else 1),))


def _syntax_problem(error: yaml.MarkedYAMLError) -> str:
    problem = " ".join((error.problem or error.context or "it cannot be read").split())
    if "'\\t'" in problem:
        return "not YAML: a tab at the start of a token; indent with spaces"
    if "expected a single document" in (error.context or ""):
        return "has more than one document; remove all but one, and the '---' between them"
    return f"not YAML: {shortened(problem)}; check indentation, colons and quotes here"


class _Reader:
    """Reads the nodes. Aliases share nodes, and each node is read once, so they cannot explode or loop."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.lines: dict[KeyPath, int] = {}
        self._known: dict[int, Any] = {}
        self._scalars = yaml.constructor.SafeConstructor()

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        self._known[id(node)] = result
        if node.tag != _PLAIN_MAPPING:
            self._finding(node, path, f"the tag {shortened(node.tag)!r} is not supported; remove it")
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key is None:
                continue
            here = (*path, key)
            if key in result:
                first = self.lines[here]
                self._finding(key_node, here, f"is given twice (first in line {first}); remove one of them")
                continue
            self.lines[here] = key_node.start_mark.line + 1
            result[key] = self._value(value_node, here)
        return result

    def _key(self, node: yaml.Node, path: KeyPath) -> str | None:
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str":
            return str(node.value)
        shown = shortened(str(node.value)) if isinstance(node, yaml.ScalarNode) else "a list or a mapping"
        hint = (
            "'<<' (merging) is not supported; write the keys out"
            if shown == "<<"
            else "put it in quotes or remove it"
        )
        self._finding(node, path, f"the key {shown!r} is not text; {hint}")
        return None

    def _value(self, node: yaml.Node, path: KeyPath) -> Any:
        if id(node) in self._known:
            return self._known[id(node)]
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return self._list(node, path)
        self._known[id(node)] = value = self._scalar(node, path)
        return value

    def _list(self, node: yaml.SequenceNode, path: KeyPath) -> list[Any]:
        result: list[Any] = []
        self._known[id(node)] = result
        if node.tag != _PLAIN_LIST:
            self._finding(node, path, f"the tag {shortened(node.tag)!r} is not supported; remove it")
        for index, item in enumerate(node.value):
            here = (*path, index)
            self.lines[here] = item.start_mark.line + 1
            result.append(self._value(item, here))
        return result

    def _scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        if node.tag in _SCALARS:
            try:
                value = self._scalars.construct_object(node)
            except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError):
                # `!!int x`, a date without such a day, a number of 5000 digits: PyYAML lets these escape
                self._finding(node, path, f"{shortened(str(node.value))!r} cannot be read; put it in quotes")
                return None
            surprise = _surprise(node, value)
            if surprise:
                self._finding(node, path, surprise)
            return None if surprise else value
        self._finding(node, path, f"the tag {shortened(node.tag)!r} is not supported; remove it")
        return None

    def _finding(self, node: yaml.Node, path: KeyPath, text: str) -> None:

        self.findings.append(Finding(path, text, line=node.start_mark.line + 1))


def _surprise(node: yaml.Node, value: Any) -> str:
    """What is wrong with a number that YAML reads as another one than people do; "" if nothing is."""
    if node.tag not in _NUMBERS or not isinstance(value, int | float):
        return ""
    shown = shortened(str(node.value))
    if _OCTAL.fullmatch(str(node.value)):
        plain = shown.lstrip("+-").lstrip("0_") or "0"
        return f"{shown} is the number {value:g} in YAML (a leading 0 is octal); write {plain} or {value:g}"
    if _BASE_60.fullmatch(str(node.value)):
        return f"{shown} is the number {value:g} in YAML (base 60); write a plain number, or text in quotes"
    return ""
