"""Which copies of this node are damaged: noted on disk before anybody hears of it, until replaced."""

import json
from pathlib import Path

import pytest

from stargate_gate.errors import BrokenRepositoryError, NewerFormatError
from stargate_gate.repos.unsound import MAX_WHY_CHARACTERS, Note, UnsoundCopies

ID, OTHER = "a" * 32, "b" * 32


def opened(folder: Path) -> UnsoundCopies:
    return UnsoundCopies.open(folder / "unsound.json")


async def test_a_note_is_on_disk_before_anybody_hears_of_it(tmp_path: Path) -> None:
    """Whoever hears of it acts on it; a crash then must not forget it."""
    copies = UnsoundCopies(tmp_path / "unsound.json", now=lambda: 12.5)
    heard = []
    copies.tell(lambda identity, note: heard.append((identity, note, dict(opened(tmp_path).notes()))))
    await copies.note(ID, "org/app", "a bad\n object")
    note = Note("org/app", "a bad object", 12)
    assert heard == [(ID, note, {ID: note})]
    assert copies.notes() == {ID: note}
    await copies.clear(ID)
    assert heard[1:] == [(ID, None, {})]


async def test_the_first_note_stays_until_it_is_cleared(tmp_path: Path) -> None:
    """Found again, it was found before; a note that was cleared is not there after a restart."""
    copies = opened(tmp_path)
    await copies.note(ID, "org/app", "first")
    await copies.note(ID, "org/app", "second")
    await copies.note(OTHER, "org/lib", "x" * 10_000)
    assert copies.notes()[ID].why == "first"
    assert len(copies.notes()[OTHER].why) == MAX_WHY_CHARACTERS
    await copies.clear(ID)
    await copies.clear(ID)
    assert set(opened(tmp_path).notes()) == {OTHER} == set(copies.notes())


async def test_what_is_noted_is_not_served(tmp_path: Path) -> None:
    """With the reason."""
    copies = opened(tmp_path)
    copies.require_sound(ID)
    await copies.note(ID, "org/app", "a bad object")
    with pytest.raises(BrokenRepositoryError, match=r"org/app .*a bad object"):
        copies.require_sound(ID)
    copies.require_sound(OTHER)


async def test_a_note_that_cannot_be_written_is_no_note(tmp_path: Path) -> None:
    """Nothing may follow from it, but nothing is served from the copy, either."""
    copies = UnsoundCopies(tmp_path / "none" / "unsound.json")
    heard = []
    copies.tell(lambda *of: heard.append(of))
    with pytest.raises(OSError):
        await copies.note(ID, "org/app", "a bad object")
    assert heard == []
    with pytest.raises(BrokenRepositoryError):
        copies.require_sound(ID)


@pytest.mark.parametrize("content", ["", "[]", '{"copies": 3}', '{"copies": {"a": {}}}', "\0\0"])
def test_a_damaged_file_keeps_no_node_from_starting(tmp_path: Path, content: str) -> None:
    """The damage of the copies is found again when they are checked."""
    (tmp_path / "unsound.json").write_text(content)
    assert opened(tmp_path).notes() == {}


def test_newer_notes_are_refused(tmp_path: Path) -> None:
    """As any newer file."""
    (tmp_path / "unsound.json").write_text(json.dumps({"format": 2, "copies": {}}))
    with pytest.raises(NewerFormatError):
        opened(tmp_path)


async def test_status_names_what_is_damaged_and_what_happens(tmp_path: Path) -> None:
    """A few of them; the others are counted."""
    copies = opened(tmp_path)
    for number in range(7):
        await copies.note(str(number), f"org/{number}", "a bad object")
    lines = copies.lines(leads=False)
    assert len(lines) == 6
    assert "org/0 here is damaged (a bad object)" in lines[0]
    assert "fetched anew from the leader" in lines[0]
    assert lines[-1].startswith("2 more")
    assert "another one takes over" in copies.lines(leads=True)[0]
