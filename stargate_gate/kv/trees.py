"""Git's tree objects: read, looked up and edited, many paths at once and level by level. Pure.

A tree is read only if it is on the way to a path that is asked for or changed: to set one key among a
hundred thousand, some ten trees are read and as many written.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from stargate_gate.kv.keys import Path

Load: TypeAlias = Callable[[Collection[bytes]], Mapping[bytes, bytes]]  # the content of trees, by oid
Store: TypeAlias = Callable[[str, bytes], bytes]  # takes (kind, content) of an object; its oid

FOLDER = b"40000"
FILE = b"100644"


class Entry(NamedTuple):
    """What a name in a tree stands for."""

    mode: bytes
    oid: bytes


Tree: TypeAlias = dict[bytes, Entry]

_ENTRIES = {size: re.compile(rb"([0-7]+) ([^\0]+)\0(.{%d})" % size, re.DOTALL) for size in (20, 32)}


def parse(content: bytes, oid_bytes: int) -> Tree:
    """A tree object's entries; `oid_bytes` is 20 or 32."""
    return {name: Entry(mode, oid) for mode, name, oid in _ENTRIES[oid_bytes].findall(content)}


def serialize(tree: Tree) -> bytes:
    """A tree object's content; folders are ordered as if their names ended in a slash (fsck)."""
    ordered = sorted(tree.items(), key=lambda item: item[0] + b"/" if item[1].mode == FOLDER else item[0])
    return b"".join([b"%b %b\0%b" % (mode, name, oid) for name, (mode, oid) in ordered])


def lookup(root: bytes | None, paths: Iterable[Path], load: Load) -> dict[Path, Entry]:
    """What is at those of `paths` that exist."""
    found: dict[Path, Entry] = {}
    asked = [(root, path, path) for path in paths] if root is not None else []
    while asked:
        trees = _load(load, {oid for oid, _, _ in asked})
        deeper = []
        for oid, path, rest in asked:
            entry = trees[oid].get(rest[0])
            if entry is None:
                continue
            if len(rest) == 1:
                found[path] = entry
            elif entry.mode == FOLDER:
                deeper.append((entry.oid, path, rest[1:]))
        asked = deeper
    return found


@dataclass
class _Node:
    """A tree that changes."""

    entries: Tree = field(default_factory=dict)
    below: "dict[bytes, _Node]" = field(default_factory=dict)


_Change: TypeAlias = tuple[Path, Entry | None]


def edit(root: bytes | None, changes: Mapping[Path, Entry | None], load: Load, store: Store) -> bytes:
    """The oid of `root` (None: an empty tree) with these entries set, or removed where they are None.

    Folders that become empty go; the root stays. What is stored is whatever is new.
    """
    top = _Node()
    level: list[tuple[_Node, bytes | None, Collection[_Change]]] = [(top, root, changes.items())]
    while level:
        trees = _load(load, {oid for _, oid, _ in level if oid is not None})
        deeper: list[tuple[_Node, bytes | None, Collection[_Change]]] = []
        for node, oid, wanted in level:
            if oid is not None:
                node.entries = dict(trees[oid])
            deeper.extend(_apply(node, wanted))
        level = deeper
    return store("tree", serialize(_written(top, store)))


def _apply(node: _Node, changes: Iterable[_Change]) -> Iterable[tuple[_Node, bytes | None, list[_Change]]]:
    below: defaultdict[bytes, list[_Change]] = defaultdict(list)
    for path, entry in changes:
        if len(path) > 1:
            below[path[0]].append((path[1:], entry))
        elif entry is None:
            node.entries.pop(path[0], None)
        else:
            node.entries[path[0]] = entry
    for name, wanted in below.items():
        here = node.entries.get(name)
        is_folder = here is not None and here.mode == FOLDER
        if not is_folder and all(entry is None for _, entry in wanted):
            continue
        child = node.below[name] = _Node()
        yield child, here.oid if here is not None and is_folder else None, wanted


def _written(node: _Node, store: Store) -> Tree:
    for name, child in node.below.items():
        entries = _written(child, store)
        if entries:
            node.entries[name] = Entry(FOLDER, store("tree", serialize(entries)))
        else:
            node.entries.pop(name, None)
    return node.entries


def _load(load: Load, oids: Collection[bytes]) -> dict[bytes, Tree]:
    return {oid: parse(content, len(oid)) for oid, content in load(oids).items()}
