"""What is not known replicated: the sum of facts, its lines, and the journal that keeps them on disk."""

import asyncio
import os
import random
from pathlib import Path

import pytest

from stargate_gate.formats import JOURNAL
from stargate_gate.replication.rescue import journal as journal_module
from stargate_gate.replication.rescue.journal import Journal, forget_journal
from stargate_gate.replication.rescue.unreplicated import (
    COMPACT_AT_LINES,
    MAX_REFS,
    DamagedError,
    Fact,
    Forced,
    Mark,
    Refine,
    Replicated,
    Settled,
    Unknown,
    Unreplicated,
    encode,
)
from stargate_gate.replication.rescue.unreplicated import decode as decode_facts
from stargate_gate.replication.standby.acks import Acks
from stargate_gate.replication.standby.answers import OnDisk
from stargate_gate.replication.wire.messages import Applied, Progress
from stargate_gate.replication.wire.numbers import UNNUMBERED
from stargate_gate.repos.names import parse_repository_name

ONE, OTHER = "1" * 32, "2" * 32
ANY = (
    "3" * 32
)  # nothing marks it: its values count as not known replicated only if the whole journal is unknown
APP = parse_repository_name("org/app")


def summed(*facts: Fact) -> Unreplicated:
    known = Unreplicated()
    for fact in facts:
        known.apply(fact)
    return known


def test_a_marked_ref_is_kept_in_a_later_term_and_no_other_is() -> None:
    """What was marked has its term; what was not is known replicated."""
    kept = summed(Mark(3, 7, ONE, "org/app", ("refs/heads/a",))).kept(ONE, before=4)
    assert kept
    assert (kept.term_of("refs/heads/a"), kept.term_of("refs/heads/b")) == (3, None)


def test_values_of_the_term_itself_came_from_its_leader_and_are_not_kept() -> None:
    """In the term that this node follows nothing is rescued from that term's own leader."""
    assert not summed(Mark(3, 7, ONE, "org/app", ("refs/heads/a",))).kept(ONE, before=3)


def test_what_every_member_has_is_forgotten_up_to_that_position_and_in_that_term_only() -> None:
    """Positions of one term say nothing of another's."""
    known = summed(
        Mark(3, 7, ONE, "a", ("refs/heads/a",)),
        Mark(3, 8, ONE, "a", ("refs/heads/b",)),
        Mark(2, 5, ONE, "a", ("refs/heads/c",)),
        Replicated(3, 7),
    )
    assert dict(known.kept(ONE, 9).terms) == {"refs/heads/b": 3, "refs/heads/c": 2}


def test_a_ref_that_moves_again_is_replicated_with_its_newest_value() -> None:
    """The earlier change's position does not vouch for the later value."""
    known = summed(
        Mark(3, 7, ONE, "a", ("refs/heads/a",)), Mark(3, 9, ONE, "a", ("refs/heads/a",)), Replicated(3, 8)
    )
    assert known.kept(ONE, 4).term_of("refs/heads/a") == 3


def test_a_push_that_runs_counts_for_any_ref_until_it_is_refined() -> None:
    """A leader does not know yet what receive-pack will change; two at once do not answer for each other."""
    star = Mark(3, UNNUMBERED, ONE, "a", None)
    known = summed(star, star, Replicated(3, 50))
    assert known.kept(ONE, 4).term_of("refs/heads/any") == 3
    known.apply(Refine(3, 9, ONE, ("refs/heads/a",)))
    assert known.kept(ONE, 4).term_of("refs/heads/any") == 3
    known.apply(Refine(3, 10, ONE, ("refs/heads/b",)))
    kept = known.kept(ONE, 4)
    assert (dict(kept.terms), kept.rest) == ({"refs/heads/a": 3, "refs/heads/b": 3}, None)
    known.apply(Replicated(3, 10))
    assert not known.kept(ONE, 4)


def test_many_refs_become_any_ref_and_still_go_when_they_are_replicated() -> None:
    """A repository with a million refs costs one line."""
    refs = [f"refs/heads/{number}" for number in range(MAX_REFS)]
    known = summed(Mark(3, 7, ONE, "a", tuple(refs)), Mark(3, 8, ONE, "a", ("refs/heads/more",)))
    kept = known.kept(ONE, 4)
    assert (dict(kept.terms), kept.rest) == ({}, 3)
    known.apply(Replicated(3, 7))
    assert known.kept(ONE, 4)
    known.apply(Replicated(3, 8))
    assert not known.kept(ONE, 4)


def test_what_is_settled_counts_as_a_change_of_the_term_it_was_settled_in() -> None:
    """Equal to the leader of term 4 it is no question in term 4; its other standbys may lack it still."""
    marks = [Mark(term, 9, one, "a", ("refs/heads/a",)) for term in (2, 3) for one in (ONE, OTHER)]
    known = summed(*marks, Settled(4, 5, ONE, "a"))
    assert not known.kept(ONE, 4)
    assert dict(known.kept(ONE, 9).terms) == {"refs/heads/a": 4}
    assert dict(known.kept(OTHER, 4).terms) == {"refs/heads/a": 3}
    known.apply(Settled(4, 7))
    assert not known.kept(OTHER, 4)
    known.apply(Replicated(4, 5))
    assert not known.kept(ONE, 9)
    assert known.kept(OTHER, 9)
    known.apply(Replicated(4, 7))
    assert not known.kept(OTHER, 9)


def test_a_push_that_a_crash_has_cut_is_settled_like_any_other() -> None:
    """Nobody refines its mark any more: the comparison takes care of what it has changed, or has not."""
    known = summed(Mark(2, UNNUMBERED, ONE, "a", None), Settled(4, 0))
    assert known.kept(ONE, 5).term_of("refs/heads/any") == 4
    known.apply(Replicated(4, 1))
    assert not known.kept(ONE, 5)


def test_a_newer_number_of_the_same_term_is_not_taken_back_by_settling() -> None:
    """What this term's leader told later than the list is replicated later, too."""
    known = summed(
        Mark(2, 9, ONE, "a", ("refs/heads/a",)), Mark(4, 8, ONE, "a", ("refs/heads/a",)), Settled(4, 5)
    )
    known.apply(Replicated(4, 7))
    assert known.kept(ONE, 5)


def test_with_nothing_known_every_ref_counts_until_it_is_settled_and_replicated() -> None:
    """No journal: all. 0 stands for a term that nobody knows."""
    known = summed(Unknown(), Settled(4, 5, ONE, "a"))
    assert known.kept(ANY, 4)
    assert not known.kept(ONE, 4)
    assert known.kept(ONE, 5).term_of("refs/heads/a") == 4
    assert known.kept(OTHER, 4).term_of("refs/heads/a") == 0
    known.apply(Settled(4, 6))
    assert not known.kept(OTHER, 4)
    assert known.kept(OTHER, 5).term_of("refs/heads/a") == 4
    assert known.changes(Replicated(4, 6))
    known.apply(Replicated(4, 6))
    assert not known.kept(ANY, 9)
    assert not any(known.kept(one, 9) for one in (ONE, OTHER))


def test_a_leadership_that_an_operator_forced_may_lack_what_the_sync_set_had() -> None:
    """What was known replicated says nothing of that leader; it is remembered that this was seen to."""
    known = summed(Mark(3, 7, ONE, "a", ("refs/heads/a",)), Replicated(3, 7), Forced(5), Unknown())
    assert known.forced_term == 5
    assert known.kept(ONE, 5).term_of("refs/heads/a") == 0


@pytest.mark.parametrize("number", range(40))
def test_written_and_read_again_it_is_the_same_also_after_compaction(number: int) -> None:
    """The lines, the fewest lines and the memory say the same, whatever happened in whatever order."""
    chance = random.Random(number)
    facts: list[Fact] = []
    for _ in range(30):
        term, seq = chance.randint(1, 3), chance.randint(0, 5)
        one = chance.choice([ONE, OTHER])
        refs = chance.choice([None, ("refs/heads/a",), ("refs/heads/b", "refs/tags/\udcff")])
        kinds: list[Fact] = [
            Mark(term, seq, one, "a", refs),
            Mark(term, UNNUMBERED, one, "a", None),
            Refine(term, seq, one, refs),
            Replicated(term, seq),
            Settled(term, seq),
            Settled(term, seq, one, "a"),
            Unknown(),
            Forced(term),
        ]
        facts.append(chance.choices(kinds, weights=[6, 4, 4, 2, 0.5, 0.5, 0.3, 0.3])[0])
    for written in (encode(facts), encode(summed(*facts).facts())):
        known, again = summed(*facts), summed(*decode_facts(written))
        assert again.forced_term == known.forced_term
        for one in (ONE, OTHER):
            for before in (1, 2, 3, 4):
                assert again.kept(one, before) == known.kept(one, before), (number, facts)
        for seq in range(6):
            again.apply(Replicated(2, seq))
            known.apply(Replicated(2, seq))
            assert again.kept(ONE, 4) == known.kept(ONE, 4), (number, seq)


@pytest.mark.parametrize("damage", [b"x", b"\0" * 40, b"00000000 []"])
def test_a_damaged_line_is_noticed(damage: bytes) -> None:
    """Whoever reads half of it would take values for replicated that are not."""
    good = encode([Mark(3, 7, ONE, "a", None)])
    with pytest.raises(DamagedError):
        decode_facts(good + damage + b"\n" + good)
    with pytest.raises(DamagedError):
        decode_facts(good.replace(b'"mark"', b'"mork"'))


def test_a_line_without_its_end_was_promised_to_nobody() -> None:
    """`mark` returns after the fsync of the whole line: a torn last one changed no ref."""
    good = encode([Mark(3, 7, ONE, "a", None)])
    assert decode_facts(good + good[:-5]) == decode_facts(good)


# -- on disk ---------------------------------------------------------------------------------------------


async def test_a_mark_is_synced_before_it_returns_and_many_share_one_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Write-ahead: the line is in the file, and the file was synced after it was."""
    path = tmp_path / "unreplicated.log"
    journal = Journal.open(path, has_repositories=False)
    synced: list[bytes] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        real(fd)
        synced.append(path.read_bytes())

    monkeypatch.setattr(os, "fsync", fsync)
    marks = [Mark(1, 0, f"{number:032x}", "a", None) for number in range(50)]

    async def mark(one: Mark) -> None:
        await journal.mark(one.term, one.seq, one.repository_id, one.name, one.refs)
        assert encode([one]) in synced[-1]

    await asyncio.gather(*(mark(one) for one in marks))
    assert len(synced) < 5
    await journal.close()


async def test_what_was_marked_outlives_the_process(tmp_path: Path) -> None:
    """Another process reads what this one has marked, and what it has forgotten since."""
    path = tmp_path / "unreplicated.log"
    first = Journal.open(path, has_repositories=False)
    await first.mark(3, UNNUMBERED, ONE, "a", None)
    first.told(3, 5, ONE, "a", ["refs/heads/a"])
    first.refine(ONE, 3, 5, ())
    await first.mark(3, 6, OTHER, "b", ["refs/heads/b"])
    first.replicated(3, 5)
    await first.close()
    second = Journal.open(path, has_repositories=True)
    assert not second.kept(ANY, 9)
    assert not second.kept(ONE, 4)
    assert second.kept(OTHER, 4).term_of("refs/heads/b") == 3
    await second.close()


@pytest.mark.parametrize(("has_repositories", "unknown"), [(True, True), (False, False)])
async def test_a_missing_journal_means_unknown_where_there_are_repositories(
    tmp_path: Path, *, has_repositories: bool, unknown: bool
) -> None:
    """And it stays unknown over a restart, until everything is settled."""
    path = tmp_path / "unreplicated.log"
    for _ in range(2):
        journal = Journal.open(path, has_repositories=has_repositories)
        assert bool(journal.kept(ANY, 9)) is unknown
        await journal.close()
    journal = Journal.open(path, has_repositories=has_repositories)
    journal.settle(4, 1)
    journal.replicated(4, 1)
    await journal.close()
    assert not Journal.open(path, has_repositories=True).kept(ANY, 9)


async def test_a_forced_leadership_is_noted_once_and_before_anything_is_overwritten(tmp_path: Path) -> None:
    """A connection that breaks and comes back must not make known values unknown again."""
    path = tmp_path / "unreplicated.log"
    journal = Journal.open(path, has_repositories=True)
    journal.settle(4, 1)
    journal.replicated(4, 1)
    await journal.distrust(6)
    assert summed(*decode_facts(JOURNAL.body(path.read_bytes(), path))).kept(ONE, 6)
    journal.settle(6, 3)
    await journal.distrust(6)
    assert not journal.kept(ONE, 6)
    await journal.close()
    again = Journal.open(path, has_repositories=True)
    await again.distrust(6)
    assert not again.kept(ONE, 6)
    await again.close()


async def test_whatever_a_crash_leaves_of_a_forced_leadership_is_asked_about_again_or_known(
    tmp_path: Path,
) -> None:
    """The power may go between its lines. That it was forced, without what it means, would be believed."""
    path = tmp_path / "unreplicated.log"
    journal = Journal.open(path, has_repositories=False)
    before = path.stat().st_size
    await journal.distrust(6)
    await journal.close()
    content = path.read_bytes()
    for length in range(before, len(content) + 1):
        path.write_bytes(content[:length])
        again = Journal.open(path, has_repositories=True)
        await again.distrust(6)
        assert again.kept(ONE, 7), f"with {length - before} bytes of it"
        await again.close()


async def test_a_damaged_journal_means_unknown_and_is_replaced(tmp_path: Path) -> None:
    """Nothing of it is believed; the next start finds a whole file that says so."""
    path = tmp_path / "unreplicated.log"
    path.write_bytes(encode([Mark(3, 7, ONE, "a", None)]).replace(b"3,7", b"3,8"))
    for _ in range(2):
        journal = Journal.open(path, has_repositories=True)
        assert journal.kept(ANY, 9)
        await journal.close()


async def test_a_failed_write_is_told_and_the_next_one_writes_the_file_afresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk: the refs stay as they are, and half a line does not spoil what comes after."""
    path = tmp_path / "unreplicated.log"
    journal = Journal.open(path, has_repositories=False)
    await journal.mark(1, 1, ONE, "a", ["refs/heads/a"])
    real = os.write

    done = iter([10])

    def write(fd: int, data: memoryview) -> int:
        if (count := next(done, 0)) == 0:
            raise OSError(28, "No space left on device")
        return real(fd, data[:count])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(OSError, match="No space"):
            await journal.mark(1, 2, ONE, "a", ["refs/heads/b"])
    await journal.mark(1, 3, ONE, "a", ["refs/heads/c"])
    await journal.close()
    again = Journal.open(path, has_repositories=True)
    assert not again.kept(ANY, 9)
    assert {"refs/heads/a", "refs/heads/c"} <= {*again.kept(ONE, 2).terms}
    await again.close()


async def test_a_bug_in_writing_keeps_no_push_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that wait for the disk get the error. The next mark writes the file afresh."""
    path = tmp_path / "unreplicated.log"
    journal = Journal.open(path, has_repositories=False)

    def broken(*_: object) -> None:
        raise ValueError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", broken)
        async with asyncio.timeout(10):
            marks = [asyncio.create_task(journal.mark(1, 1, ONE, "a", [f"refs/heads/{n}"])) for n in range(2)]
            await asyncio.sleep(0)
            marks.append(asyncio.create_task(journal.mark(1, 1, ONE, "a", ["refs/heads/2"])))
            errors = await asyncio.gather(*marks, return_exceptions=True)
    assert [str(error) for error in errors] == ["a bug"] * 3
    await journal.mark(1, 2, ONE, "a", ["refs/heads/3"])
    await journal.close()
    again = Journal.open(path, has_repositories=True)
    assert {f"refs/heads/{n}" for n in range(4)} <= {*again.kept(ONE, 2).terms}
    await again.close()


async def test_the_file_does_not_grow_without_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is history is dropped, and what counts survives that."""
    monkeypatch.setattr("stargate_gate.replication.rescue.unreplicated.COMPACT_AT_LINES", 100)
    assert COMPACT_AT_LINES > 100
    path = tmp_path / "unreplicated.log"
    journal = Journal.open(path, has_repositories=False)
    await journal.mark(1, UNNUMBERED, OTHER, "b", None)
    for seq in range(1, 500):
        await journal.mark(1, seq, ONE, "a", ["refs/heads/a"])
        journal.replicated(1, seq)
    await journal.close()
    assert path.read_bytes().count(b"\n") <= 110
    again = Journal.open(path, has_repositories=True)
    assert again.kept(OTHER, 2)
    assert not again.kept(ONE, 2)
    await again.close()


def test_a_node_without_a_cluster_leaves_no_journal_that_would_not_tell_the_truth(tmp_path: Path) -> None:
    """Pushes to a single node are marked nowhere: back in a cluster, nothing is known."""
    path = tmp_path / journal_module.FILE_NAME
    forget_journal(path)
    path.write_bytes(b"")
    forget_journal(path)
    assert not path.exists()


# -- the sign of progress --------------------------------------------------------------------------------


ON_DISK = OnDisk("all of it")


def told(acks: Acks) -> list[object]:
    send = acks.take()
    return [] if send is None else list(send.messages)


def test_progress_is_told_at_most_once_a_second_and_not_after_it_is_applied() -> None:
    """Bytes come in thousands of pieces; the leader needs to hear that something moves."""
    acks = Acks(4)
    for moment in (0.0, 0.1, 0.9):
        acks.progress(ONE, 7, 100, moment)
    assert told(acks) == [Progress(4, 7, ONE, 100)]
    acks.progress(ONE, 7, 100, 0.95)
    acks.progress(ONE, 7, 100, 1.0)
    assert told(acks) == [Progress(4, 7, ONE, 100)]
    acks.progress(ONE, 7, 100, 2.5)
    acks.applied(ONE, 7, ON_DISK)
    assert told(acks) == [Applied(4, 7, ONE)]


def test_what_failed_says_no_progress() -> None:
    """A repository that rests before another try does not keep the leader waiting."""
    acks = Acks(4)
    other = "e" * 32
    acks.progress(ONE, 7, 100, 0.0)
    acks.progress(other, 8, 200, 0.0)
    acks.silent(ONE)
    assert told(acks) == [Progress(4, 8, other, 200)]
