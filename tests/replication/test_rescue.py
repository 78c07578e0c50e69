"""The rescue: what it keeps and what not, on real repositories, and what is left of it on disk."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stargate_gate.replication.rescue.journal import Journal
from stargate_gate.replication.rescue.restore import new_name
from stargate_gate.replication.rescue.store import Rescues
from stargate_gate.replication.rescue.unreplicated import Kept
from stargate_gate.replication.rescue.values import (
    DamagedRescuesError,
    Rescued,
    RescuedRepository,
    Value,
    from_json,
    in_question,
    to_json,
)
from stargate_gate.replication.standby.progress import Progress
from stargate_gate.replication.standby.rescue_steps import RescueSteps
from stargate_gate.replication.standby.step_runner import carry_out_all
from stargate_gate.repos.names import parse_repository_name
from stargate_gate.repos.repository import Repository
from tests.support.git import git, git_run
from tests.support.room import Room, open_room
from tests.support.site import runner_of

APP = parse_repository_name("org/app")
ID, OTHER = "1" * 32, "2" * 32
MAIN, TOPIC = "refs/heads/main", "refs/heads/topic"
OID = "a" * 40
NOW = "2026-11-27T06:00:00+00:00"


def one(ref: str = MAIN, oid: str = OID, term: int = 3) -> Rescued:
    return Rescued(Value(ref, oid, term), "node-b", 4, NOW)


# -- pure ------------------------------------------------------------------------------------------------


def test_in_question_is_what_goes_and_is_not_known_replicated() -> None:
    """What stays, and what everybody had, is no question."""
    local = {MAIN: "a" * 40, TOPIC: "b" * 40, "refs/tags/v1": "c" * 40}
    kept = Kept({MAIN: 3, TOPIC: 2}, None)
    assert in_question(local, {MAIN: "a" * 40}, kept) == (Value(TOPIC, "b" * 40, 2),)
    everything = in_question(local, {MAIN: "d" * 40}, Kept({TOPIC: 2}, 1))
    assert [(value.ref, value.term) for value in everything] == [(MAIN, 1), (TOPIC, 2), ("refs/tags/v1", 1)]


@pytest.mark.parametrize(
    ("ref", "name"),
    [
        (MAIN, "refs/heads/rescued/3/main"),
        ("refs/tags/v1.0", "refs/tags/rescued/3/v1.0"),
        ("refs/kv/main", "refs/kv/rescued/3/main"),
        ("refs/heads/a/b", "refs/heads/rescued/3/a/b"),
        ("refs/stash", "refs/heads/rescued/3/stash"),
    ],
)
def test_a_restored_value_stands_beside_the_old_name(ref: str, name: str) -> None:
    """Nothing is overwritten, and whoever looks for it finds it near."""
    assert new_name(one(ref)) == name


values = st.builds(
    Value, st.binary(min_size=1, max_size=20).map(lambda b: b.decode("utf-8", "surrogateescape")),
    st.text("0123456789abcdef", min_size=40, max_size=40), st.integers(0, 2**63),
)  # fmt: skip
repositories = st.builds(
    RescuedRepository, st.just(ID), st.just("org/app"),
    st.lists(st.builds(Rescued, values, st.text(max_size=9), st.integers(0, 9), st.just(NOW))).map(tuple),
    st.booleans(),
)  # fmt: skip


@given(repositories)
def test_what_is_written_is_read(repository: RescuedRepository) -> None:
    """Any ref name, odd bytes included."""
    assert from_json(to_json(repository)) == repository


@pytest.mark.parametrize("damage", [{}, {"id": ID, "name": "a", "in_trash": False, "values": [{}]}])
def test_something_else_is_not_read(damage: Mapping[str, object]) -> None:
    """Never half of it."""
    with pytest.raises(DamagedRescuesError):
        from_json(damage)


# -- on disk ---------------------------------------------------------------------------------------------


async def test_what_is_added_outlives_the_process_and_what_is_removed_does_not(tmp_path: Path) -> None:
    """Done twice, it is done once; the first date stays."""
    rescues = Rescues.open(tmp_path / "rescued")
    assert rescues.count == 0
    await rescues.add(ID, "org/app", [one(), one(TOPIC)], in_trash=False)
    await rescues.add(ID, "org/app", [replace(one(), rescued_at="later")], in_trash=False)
    await rescues.add(OTHER, "org/gone", [], in_trash=True)
    again = Rescues.open(tmp_path / "rescued")
    assert again.all() == rescues.all()
    assert (again.count, again.has(ID), again.has(OTHER), again.has("3" * 32)) == (3, True, True, False)
    assert [value.rescued_at for value in again.all()[0].values] == [NOW, NOW]
    await again.remove(ID, OID)
    await again.remove(ID, OID)
    assert [repository.name for repository in Rescues.open(tmp_path / "rescued").all()] == ["org/gone"]


async def test_a_damaged_file_is_told_of_and_still_keeps_its_repository(tmp_path: Path) -> None:
    """It counts, an operator is told, and the trash keeps what it stands for."""
    rescues = Rescues.open(tmp_path / "rescued")
    await rescues.add(ID, "org/app", [one()], in_trash=True)
    path = tmp_path / "rescued" / f"{ID}.json"
    path.write_bytes(path.read_bytes()[:40])
    again = Rescues.open(tmp_path / "rescued")
    assert (again.count, again.has(ID), again.all()) == (1, True, ())
    assert str(path) in again.problems[0]


# -- with git --------------------------------------------------------------------------------------------


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    async with open_room(tmp_path / "data") as opened:
        yield opened


class House:
    """A repository with a little history: base ← left, base ← right; and a tag of base."""

    def __init__(self, room: Room, repository: Repository) -> None:
        self.room, self.repository = room, repository
        self.journal = Journal.open(room.datadir.state / "unreplicated.log", has_repositories=False)
        self.rescues = Rescues.open(room.datadir.state / "rescued")
        self.rescue = RescueSteps(4, "node-b")
        self.runner = runner_of(room, self.journal, self.rescues, term=4, leader_name="node-b")
        tree = git("mktree", cwd=repository.path)
        self.base = git("commit-tree", "-m", "base", tree, cwd=repository.path)
        self.left, self.right = (
            git("commit-tree", "-m", text, "-p", self.base, tree, cwd=repository.path)
            for text in ("left", "right")
        )
        git("tag", "-m", "a tag", "v1", self.base, cwd=repository.path)
        self.tag = git("rev-parse", "refs/tags/v1", cwd=repository.path)

    async def keep(self, local: Mapping[str, str], wanted: Mapping[str, str]) -> set[str]:
        """What is rescued when `local` becomes `wanted`."""

        await carry_out_all(self.rescue.keep(self.repository, ID, local, wanted), self.runner, Progress())
        kept = git(
            "for-each-ref", "--format=%(refname) %(objectname)", "refs/stargate", cwd=self.repository.path
        )
        rescued = {one.value.oid for repository in self.rescues.all() for one in repository.values}
        assert rescued == {line.split(" ")[1] for line in kept.splitlines()}
        return rescued

    async def keep_whole(self) -> bool:
        """Whether it stays in the trash."""
        steps = self.rescue.keep_whole(self.repository, ID)
        return await carry_out_all(steps, self.runner, Progress()) is not None


@pytest.fixture
async def house(room: Room) -> AsyncIterator[House]:
    made = House(room, await room.store.create(APP, id=ID))
    yield made
    await made.journal.close()


async def test_what_the_leader_can_reach_is_not_rescued(house: House) -> None:
    """It went on from there: nothing is lost. A branch beside it is."""
    await house.journal.mark(3, 7, ID, "org/app", [MAIN, TOPIC])
    assert await house.keep({MAIN: house.base}, {MAIN: house.right}) == set()
    assert await house.keep({MAIN: house.left}, {MAIN: house.right}) == {house.left}
    assert await house.keep({MAIN: house.left}, {MAIN: house.right}) == {house.left}
    assert await house.keep({TOPIC: house.right}, {}) == {house.left, house.right}
    assert house.rescues.count == 2


async def test_what_was_known_replicated_is_not_rescued(house: House) -> None:
    """Whoever leads has dealt with it."""
    await house.journal.mark(3, 7, ID, "org/app", [MAIN, TOPIC])
    await house.journal.mark(3, 8, ID, "org/app", [TOPIC])
    house.journal.replicated(3, 7)
    assert await house.keep({MAIN: house.left, TOPIC: house.right}, {}) == {house.right}


async def test_a_tag_object_counts_by_itself(house: House) -> None:
    """That its commit is there does not bring the tag back."""
    await house.journal.mark(3, 7, ID, "org/app", ["refs/tags/v1"])
    assert (
        await house.keep({"refs/tags/v1": house.tag}, {MAIN: house.left, "refs/tags/v2": house.tag}) == set()
    )
    assert await house.keep({"refs/tags/v1": house.tag}, {MAIN: house.left}) == {house.tag}


async def test_a_blob_or_a_tree_can_be_a_value(house: House) -> None:
    """Refs may point at anything."""
    blob = git("hash-object", "-w", "--stdin", cwd=house.repository.path, given=b"content")
    tree = git("mktree", cwd=house.repository.path)
    await house.journal.mark(3, 7, ID, "org/app", ["refs/x/blob", "refs/x/tree"])
    local = {"refs/x/blob": blob, "refs/x/tree": tree}
    assert await house.keep(local, {"refs/x/blob": tree, MAIN: house.left}) == {blob}


async def test_a_rescued_value_survives_what_prunes(house: House) -> None:
    """As long as it is not restored or dropped."""
    await house.journal.mark(3, 7, ID, "org/app", [MAIN])
    await house.keep({MAIN: house.left}, {})
    git("gc", "-q", "--prune=now", cwd=house.repository.path)
    assert git("cat-file", "-t", house.left, cwd=house.repository.path) == "commit"
    assert git_run("cat-file", "-t", house.right, cwd=house.repository.path).returncode != 0


async def test_a_repository_that_nobody_may_lack_is_not_kept(house: House) -> None:
    """An empty one, or one that was replicated as a whole, goes to the trash as always."""
    git("update-ref", MAIN, house.left, cwd=house.repository.path)
    assert not await house.keep_whole()
    await house.journal.mark(3, 7, ID, "org/app", [TOPIC])
    assert not await house.keep_whole()
    await house.journal.mark(3, 8, ID, "org/app", [MAIN])
    assert await house.keep_whole()
    (kept,) = house.rescues.all()
    assert (kept.in_trash, [one.value for one in kept.values]) == (True, [Value(MAIN, house.left, 3)])
