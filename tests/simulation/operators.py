"""What operators do to folders by hand, on any node, whether it runs or not; and clients that read.

All of it is done under the node's feet: nobody tells the product. Whatever takes several commands takes
several steps of the simulator, and seconds in between.
"""

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from tests.simulation.disk import Disk, Repo
from tests.simulation.engine import Steps
from tests.simulation.events import REPOS, Event

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

NAMES = (*REPOS, "u", "v")
ASIDE = "aside"  # where a folder is put while two change names


class _Hand:
    """One operator's, at one node, for one event."""

    def __init__(self, world: "World", event: Event) -> None:
        self.world = world
        self.event = event
        self.node: Node = world.nodes[event.node]
        self.disk: Disk = self.node.disk
        self.chance = Random(event.seed)

    def some(self) -> str | None:
        """The name of a folder that is here."""
        there = sorted(self.disk.repos)
        return self.chance.choice(there) if there else None

    def free(self) -> str | None:
        """A name that nothing has."""
        names = [name for name in NAMES if name not in self.disk.repos]
        return self.chance.choice(names) if names else None

    def moves(self, name: str, other: str) -> bool:
        """mv; False if there is nothing of that name, or something of the other."""
        if name not in self.disk.repos or other in self.disk.repos or self.gone():
            return False
        self.disk.rename(name, other)
        self.world.say(self.node, f"mv {name} {other}")
        return self.done()

    def copies(self, repo: Repo, name: str) -> None:
        """cp -a, also from another node."""
        copy = repo.copy(name, since=self.world.engine.taken)
        self.disk.place(name, copy)
        self.disk.objects.update(copy.refs.values())
        self.world.say(self.node, f"cp -a {repo.name} {name} ({repo.id})")
        self.done()

    def has_copy(self, repo: Repo) -> bool:
        """Whether another folder here has the same id: without the original, that one is it."""
        return any(one.id == repo.id for one in self.disk.repos.values() if one is not repo)

    def takes(self, name: str) -> Repo:
        """The folder is not among the repositories any more."""
        repo = self.disk.repos.pop(name)
        if repo.original and repo.id:
            self.world.ledger.takes_away(self.node, repo)
        self.world.say(self.node, f"takes away {name} ({repo.id})")
        self.done()
        return repo

    def gone(self) -> bool:
        """Whether the node has another disk by now."""
        return self.node.disk is not self.disk

    def done(self) -> bool:
        self.world.ledger.dirty = True
        return True

    def pause(self) -> Steps:
        yield None, self.event.seconds * self.chance.random() / 4


def _move(world: "World", event: Event) -> bool:
    hand = _Hand(world, event)
    name, other = hand.some(), hand.free()
    return name is not None and other is not None and hand.moves(name, other)


def _swap(world: "World", event: Event) -> bool:
    """Two folders change names, by way of a third name."""
    hand = _Hand(world, event)
    name, other = hand.some(), hand.some()
    if name is None or other is None or name == other or ASIDE in hand.disk.repos:
        return False

    def steps() -> Steps:
        for one, to in ((name, ASIDE), (other, name), (ASIDE, other)):
            hand.moves(one, to)
            yield from hand.pause()

    world.engine.start("swap", steps())
    return True


def _chain(world: "World", event: Event) -> bool:
    """Each gets the name of the one before: s becomes what r was, t what s was."""
    hand = _Hand(world, event)
    names, last = sorted(hand.disk.repos), hand.free()
    if len(names) < 2 or last is None:
        return False

    def steps() -> Steps:
        to = last
        for name in names:
            hand.moves(name, to)
            to = name
            yield from hand.pause()

    world.engine.start("chain", steps())
    return True


def _copy(world: "World", event: Event) -> bool:
    hand = _Hand(world, event)
    name, other = hand.some(), hand.free()
    if name is None or other is None:
        return False
    hand.copies(hand.disk.repos[name], other)
    return True


def _replace_by_copy(world: "World", event: Event) -> bool:
    """The original goes to another name, and a copy of it gets its name."""
    hand = _Hand(world, event)
    name, other = hand.some(), hand.free()
    if name is None or other is None:
        return False

    def steps() -> Steps:
        if hand.moves(name, other):
            yield from hand.pause()
            if other in hand.disk.repos and name not in hand.disk.repos and not hand.gone():
                hand.copies(hand.disk.repos[other], name)

    world.engine.start("replace", steps())
    return True


def _remove(world: "World", event: Event) -> bool:
    hand = _Hand(world, event)
    name = hand.some()
    if name is None or hand.has_copy(hand.disk.repos[name]):
        return False
    hand.disk.free_inodes.append(hand.takes(name).inode)
    return True


def _take_and_put_back(world: "World", event: Event) -> bool:
    """It lies elsewhere for a while, and comes back under its name or another one."""
    hand = _Hand(world, event)
    name = hand.some()
    if name is None or hand.has_copy(hand.disk.repos[name]):
        return False
    repo = hand.takes(name)

    def steps() -> Steps:
        yield None, event.seconds
        place = name if hand.chance.random() < 0.5 else hand.free()
        if hand.gone() or place is None or place in hand.disk.repos:
            return
        if any(repo.id in node.disk.deleted for node in world.nodes):
            return  # a user has deleted it meanwhile: nobody puts it back then
        hand.disk.put_under(place, repo)
        world.ledger.comes_back(hand.node, repo)
        world.say(hand.node, f"puts {repo.id} back as {place}")

    world.engine.start("put back", steps())
    return True


def _appear(world: "World", event: Event) -> bool:
    """A folder is copied in: without an id, with one that nobody knows, or one of another node's."""
    hand = _Hand(world, event)
    name = hand.free()
    if name is None:
        return False
    kind = hand.chance.choice(("no id", "unknown id", "of another node"))
    if kind == "of another node":
        return _bring(world, hand, name)
    repo = Repo(name, world.new_id("f") if kind == "unknown id" else "", since=world.engine.taken)
    repo.refs = {"main": world.new_id("v")}
    repo.stable = dict(repo.refs)
    hand.disk.objects.update(repo.refs.values())
    world.ledger.appears(repo)
    hand.disk.place(name, repo)
    world.say(hand.node, f"{name} appears ({repo.id or 'no id'})")
    return hand.done()


def _bring(world: "World", hand: _Hand, name: str) -> bool:
    """A folder of another node's: a copy of what is here, or what this node has lost (see the runbook)."""
    theirs = world.nodes[hand.event.other]
    found = sorted(theirs.disk.repos.items())
    if not found or theirs is hand.node:
        return False
    repo = hand.chance.choice(found)[1]
    here = hand.disk.by_id(repo.id) if repo.id else repo
    if here is None and not world.ledger.is_whole(theirs, repo):
        return False
    hand.copies(repo, name)
    if here is None:
        hand.disk.lines[repo.id] = theirs.disk.line(repo.id) | hand.disk.line(repo.id)
        world.ledger.comes_back(hand.node, hand.disk.repos[name])
    return True


def _read(world: "World", event: Event) -> bool:
    """A client fetches: whatever it asks for is looked at, as for a push."""
    hand = _Hand(world, event)
    name, process = hand.some(), hand.node.process
    if name is None or process is None or process.frozen:
        return False
    process.start("read", process.store.require(name))
    return True


BY_HAND: dict[str, Callable[["World", Event], bool]] = {
    "mv": _move,
    "swap by mv": _swap,
    "chain of mv": _chain,
    "cp -a": _copy,
    "mv and cp -a": _replace_by_copy,
    "rm": _remove,
    "mv away and back": _take_and_put_back,
    "folder appears": _appear,
    "read": _read,
}
