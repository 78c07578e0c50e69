"""Git's tree objects: read, looked up and edited, many paths at once and level by level. Pure.

Only trees on the way to a wanted or changed path are read: to set one key among a hundred thousand, about ten
trees are read and as many written.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

from stargate_gate.kv.keys import Path

Load: TypeAlias = Callable[[Collection[bytes]], Mapping[bytes, bytes]]  # the content of trees, by oid
Store: TypeAlias = Callable[[str, bytes], bytes]  # takes (kind, content) of an object; its oid

FOLDER = b"40000"
FILE = b"100644"


class Entry(NamedTuple):
    """What a name in a tree refers to."""

    mode: bytes
    oid: bytes


Tree: TypeAlias = dict[bytes, Entry]
Changes: TypeAlias = "dict[bytes, Changes | Entry | None]"  # by name; None removes, a dict is a folder

_ENTRIES = {size: re.compile(rb"([0-7]+) ([^\0]+)\0(.{%d})" % size, re.DOTALL) for size in (20, 32)}


def parse(content: bytes, oid_bytes: int) -> Tree:
    """A tree object's entries; `oid_bytes` is 20 or 32."""
    return {name: Entry(mode, oid) for mode, name, oid in _ENTRIES[oid_bytes].findall(content)}


def serialize(tree: Tree) -> bytes:
    """A tree object's content; folders are ordered as if their names ended in a slash (fsck)."""
    items = tree.items()
    if len(tree) > 1:
        items = sorted(items, key=lambda item: item[0] + b"/" if item[1].mode == FOLDER else item[0])  # type: ignore[assignment]
    return b"".join([b"%b %b\0%b" % (mode, name, oid) for name, (mode, oid) in items])


def lookup(root: bytes | None, paths: Iterable[Path], load: Load) -> dict[Path, Entry]:
    """The entries at `paths`; paths that do not exist are left out."""
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


def note(changes: Changes, path: Path, entry: Entry | None) -> None:
    """Add to `changes` that `path` becomes `entry`. No path may be a folder of another path."""
    folder = changes
    for name in path[:-1]:
        below = folder.setdefault(name, {})
        assert isinstance(below, dict)  # noqa: S101 - see the docstring
        folder = below
    folder[path[-1]] = entry


class _Node:
    """A tree that changes, with those of its folders that change."""

    __slots__ = ("below", "entries")

    def __init__(self) -> None:
        self.entries: Tree = {}
        self.below: dict[bytes, _Node] = {}


_Level: TypeAlias = list[tuple[_Node, bytes | None, Changes]]


def edit(root: bytes | None, changes: Changes, load: Load, store: Store) -> bytes:
    """The oid of `root` (None: an empty tree) with these changes.

    Folders that become empty are removed, except the root. `store` gets every tree that may be new.
    """
    top = _Node()
    level: _Level = [(top, root, changes)]
    while level:
        trees = _load(load, {oid for _, oid, _ in level if oid is not None})
        deeper: _Level = []
        for node, oid, wanted in level:
            if oid is not None:
                node.entries = dict(trees[oid])
            deeper.extend(_apply(node, wanted))
        level = deeper
    return store("tree", serialize(_written(top, store)))


def _apply(node: _Node, changes: Changes) -> Iterator[tuple[_Node, bytes | None, Changes]]:
    """Change the files of `node`; yields the folders that change."""
    entries = node.entries
    for name, change in changes.items():
        if change is None:
            entries.pop(name, None)
        elif isinstance(change, Entry):
            entries[name] = change
        else:
            here = entries.get(name)
            oid = here.oid if here is not None and here.mode == FOLDER else None
            if oid is not None or _adds(change):
                child = node.below[name] = _Node()
                yield child, oid, change


def _adds(changes: Changes) -> bool:
    """Whether it adds or changes anything, instead of only removing."""
    return any(
        isinstance(change, Entry) or (change is not None and _adds(change)) for change in changes.values()
    )


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
