"""From any set of refs to any other, as real git carries it out."""

import itertools
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stargate_gate.repos.plan import RefChange, plan_transactions, update_ref_input
from tests.support.git import git, git_run

# Names that are files and folders of each other, and odd ones.
NAMES = [
    *(
        "refs/heads/a",
        "refs/heads/a/b",
        "refs/heads/a/b/c",
        "refs/heads/a/d",
        "refs/heads/b",
        "refs/heads/b/c",
    ),
    *(
        "refs/tags/a",
        "refs/x/a",
        "refs/heads/ä",
        "refs/heads/\udcff\udcfe",
        "refs/heads/a-b",
        "refs/heads/a.b",
    ),
]


def is_possible(refs: Mapping[str, str]) -> bool:
    """No ref is a folder of another."""
    return not any(other.startswith(ref + "/") for ref, other in itertools.permutations(refs, 2))


ref_sets = st.dictionaries(st.sampled_from(NAMES), st.sampled_from("012"), max_size=6).filter(is_possible)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "r.git"
    git("init", "-q", "--bare", path)
    return path


@pytest.fixture(scope="module")
def oids(repository: Path) -> list[str]:
    tree = git("mktree", cwd=repository)
    return [git("commit-tree", "-m", str(number), tree, cwd=repository) for number in range(3)]


def read(repository: Path) -> dict[str, str]:
    lines = git("for-each-ref", "--format=%(refname) %(objectname)", cwd=repository).splitlines()
    return dict(line.split(" ") for line in lines)


def bring(repository: Path, wanted: Mapping[str, str]) -> None:
    for transaction in plan_transactions(read(repository), wanted):
        git("update-ref", "--stdin", "-z", cwd=repository, given=update_ref_input(transaction))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(ref_sets, min_size=1, max_size=3), packed=st.booleans())
def test_git_carries_out_every_plan(
    repository: Path, oids: list[str], steps: list[dict[str, str]], *, packed: bool
) -> None:
    """Whatever is there becomes whatever is wanted, `a` → `a/b` and back included, loose or packed."""
    for step in steps:
        wanted = {ref: oids[int(value)] for ref, value in step.items()}
        bring(repository, wanted)
        assert read(repository) == wanted
        if packed:
            git("pack-refs", "--all", cwd=repository)


@given(ref_sets, ref_sets)
def test_a_plan_is_the_difference_and_nothing_else(local: dict[str, str], wanted: dict[str, str]) -> None:
    """Every difference once, with the old value that is expected; at most two transactions, none empty."""
    plan = plan_transactions(local, wanted)
    changes = [change for transaction in plan for change in transaction]
    assert all(plan)
    assert len(plan) <= 2
    assert len({change.ref for change in changes}) == len(changes)
    assert {change.ref for change in changes} == {
        ref for ref in {*local, *wanted} if local.get(ref) != wanted.get(ref)
    }
    assert all(
        change.old == local.get(change.ref) and change.new == wanted.get(change.ref) for change in changes
    )
    if len(plan) == 2:
        assert all(change.new is None for change in plan[0])


def test_only_what_makes_room_goes_first() -> None:
    """Deletions that stand in nobody's way stay in one transaction with the rest."""
    local = {"refs/heads/a": "1", "refs/heads/x": "1"}
    assert plan_transactions(local, {"refs/heads/a/b": "2"}) == [
        [RefChange("refs/heads/a", "1", None)],
        [RefChange("refs/heads/a/b", None, "2"), RefChange("refs/heads/x", "1", None)],
    ]


def test_a_changed_old_value_stops_the_whole_transaction(repository: Path, oids: list[str]) -> None:
    """Nothing is overwritten that was not expected, and nothing else of that transaction happens."""
    bring(repository, {"refs/heads/a": oids[0], "refs/heads/b": oids[0]})
    stale = [RefChange("refs/heads/a", oids[1], oids[2]), RefChange("refs/heads/b", oids[0], oids[2])]
    assert (
        git_run("update-ref", "--stdin", "-z", cwd=repository, given=update_ref_input(stale)).returncode != 0
    )
    assert read(repository) == {"refs/heads/a": oids[0], "refs/heads/b": oids[0]}


def test_a_symbolic_ref_is_replaced_and_its_target_left_alone(repository: Path, oids: list[str]) -> None:
    """A local alias neither drags its target along nor stops an update; HEAD stays what it is."""
    bring(repository, {"refs/heads/b": oids[0]})
    git("symbolic-ref", "refs/heads/alias", "refs/heads/b", cwd=repository)
    head = git("symbolic-ref", "HEAD", cwd=repository)
    bring(repository, {"refs/heads/b": oids[0], "refs/heads/alias": oids[1]})
    assert read(repository) == {"refs/heads/b": oids[0], "refs/heads/alias": oids[1]}
    git("symbolic-ref", "refs/heads/alias", "refs/heads/b", cwd=repository)
    bring(repository, {"refs/heads/b": oids[2], "refs/heads/alias": oids[2]})
    assert read(repository) == {"refs/heads/b": oids[2], "refs/heads/alias": oids[2]}
    git("symbolic-ref", "refs/heads/alias", "refs/heads/b", cwd=repository)
    bring(repository, {"refs/heads/b": oids[2]})
    assert read(repository) == {"refs/heads/b": oids[2]}
    assert git("symbolic-ref", "HEAD", cwd=repository) == head
