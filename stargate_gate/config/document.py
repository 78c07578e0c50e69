"""YAML text as plain values that remember their lines.

PyYAML's nodes are walked here rather than handed to its constructor, for the lines, for keys that
occur twice (PyYAML drops one without a word), and so that no tag can make anything but plain values.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from stargate_gate.config.findings import Finding, KeyPath
from stargate_gate.config.values import shortened

_PLAIN_MAPPING = "tag:yaml.org,2002:map"
_PLAIN_LIST = "tag:yaml.org,2002:seq"
_SCALARS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "timestamp"))


@dataclass(frozen=True)
class Document:
    """What a YAML file says. `data` has what could be read; `findings` tell what could not."""

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
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        return _broken(_syntax_problem(error), error.problem_mark or error.context_mark)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        finding = Finding((), f"character {error.character!r} is not allowed in YAML; remove it", line=line)
        return Document({}, (finding,))
    except RecursionError:
        return _broken("is nested too deeply; keep to the keys in docs/configuration.md", None)
    if root is None or _is_empty(root):
        return _broken("is empty; write at least 'node: {}' for a single node with all defaults", None)
    if not isinstance(root, yaml.MappingNode):
        return _broken(
            "is not a mapping; write keys and values, as in 'node: {name: node-a}'", root.start_mark
        )
    reader = _Reader()
    data = reader.mapping(root, ())
    return Document(data, tuple(reader.findings), reader.lines)


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
    """Walks the nodes. Aliases share nodes: each node is read once, so they cannot blow up or loop."""

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
                return self._scalars.construct_object(node)
            except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError):
                # `!!int x`, a date without such a day, a number of 5000 digits: PyYAML lets these escape
                self._finding(node, path, f"{shortened(str(node.value))!r} cannot be read; put it in quotes")
                return None
        self._finding(node, path, f"the tag {shortened(node.tag)!r} is not supported; remove it")
        return None

    def _finding(self, node: yaml.Node, path: KeyPath, text: str) -> None:
        self.findings.append(Finding(path, text, line=node.start_mark.line + 1))
