"""The file of keys on disk: when it is read again, and what happens if it cannot be read."""

import asyncio
import contextlib
import os
import socket
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from stargate_gate.access import key_file
from stargate_gate.access.authorized_keys import AuthorizedKeys
from stargate_gate.access.key_blocks import MAX_LINES
from stargate_gate.access.key_file import KeyFile, KeyReader
from tests.support.key_lines import ed25519, numbered

LIMIT_S = 30.0


def test_the_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """In place, by replacement, and twice within one tick of the clock."""
    path = tmp_path / "authorized_keys"
    path.write_text(ed25519(1) + " one\n")
    file = KeyReader(path)
    assert [entry.comment for entry in file.look().keys.entries] == ["one"]
    path.write_text(ed25519(1) + " two\n")
    assert [entry.comment for entry in file.look().keys.entries] == ["two"]
    (tmp_path / "new").write_text(ed25519(1) + " six\n")
    (tmp_path / "new").rename(path)
    assert [entry.comment for entry in file.look().keys.entries] == ["six"]


def test_what_has_not_changed_is_not_parsed_again(tmp_path: Path) -> None:
    """Neither a file that is old nor one that was only touched."""
    path = tmp_path / "authorized_keys"
    path.write_text(ed25519() + "\n")
    os.utime(path, (1_600_000_000, 1_600_000_000))
    file = KeyReader(path)
    keys = file.look().keys
    assert file.look().keys is keys
    path.touch()
    assert file.look().keys is keys
    assert file.look(anew=True).keys is keys


def test_an_unreadable_file_leaves_the_last_good_one_in_force(tmp_path: Path) -> None:
    """It is logged once, and again only if it changes. When the file is back there is no problem any more."""
    path = tmp_path / "authorized_keys"
    path.write_text(f"{ed25519()} alice\nbroken\n")
    file = KeyReader(path)
    file.look()
    content = path.read_bytes()
    path.unlink()
    with capture_logs() as logs:
        assert len(file.look().keys.entries) == len(file.look().keys.entries) == 1
    assert [entry["event"] for entry in logs] == ["authorized_keys_unreadable"]
    trouble = file.look().trouble
    assert trouble is not None
    assert "No such file" in trouble
    assert "stay in force" in trouble
    path.write_bytes(content)
    assert file.look().trouble is None


@pytest.mark.parametrize(
    "kind", ["nothing", "fifo", "directory", "device", "socket", "writable", "utf16", "long"]
)
def test_what_is_no_file_of_keys_changes_nothing(tmp_path: Path, kind: str) -> None:
    """Attack: a FIFO in the place of the file held the loop until the watchdog ended the node."""
    path = tmp_path / "authorized_keys"
    path.write_text(f"{ed25519()} alice\n")
    file = KeyReader(path)
    before = file.look().keys
    path.unlink()
    with contextlib.ExitStack() as stack:
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "directory":
            path.mkdir()
        elif kind == "device":
            path.symlink_to("/dev/zero")
        elif kind == "socket":
            stack.enter_context(socket.socket(socket.AF_UNIX)).bind(str(path))
        elif kind == "writable":
            path.write_text(f"{ed25519(2)} mallory\n")
            path.chmod(0o666)
        elif kind == "utf16":
            path.write_text(f"{ed25519(2)} bob\n", encoding="utf-16")
        elif kind == "long":
            path.write_bytes(b"\n" * (MAX_LINES + 1) + ed25519(2).encode())
        now = file.look()
    assert now.keys is before
    assert now.trouble is not None
    words = {
        "nothing": "No such file",
        "fifo": "a FIFO",
        "writable": "chmod",
        "utf16": "UTF-8",
        "long": "lines",
    }
    assert words.get(kind, kind) in now.trouble


def test_without_a_file_nobody_may_log_in(tmp_path: Path) -> None:
    """The text says what to do."""
    found = KeyReader(tmp_path / "authorized_keys").look()
    assert found.keys == AuthorizedKeys()
    assert found.trouble is not None
    assert "nobody can log in: put public keys there" in found.trouble


async def test_a_look_that_hangs_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a volume that does not answer: logins wait a moment and use the keys read before."""
    path = tmp_path / "authorized_keys"
    path.write_text(f"{ed25519()} alice\n")
    file = KeyFile(path)
    await file.start()
    hangs = threading.Event()
    try:
        path.write_text(f"{ed25519()} bob\n")
        monkeypatch.setattr(KeyReader, "look", lambda *_, **__: hangs.wait())
        for _ in range(3):
            (entry,) = (await file.look()).entries
            assert entry.comment == "alice"
        monkeypatch.setattr(key_file, "SLOW_S", 0.0)
        assert "does the disk that it is on answer?" in file.problems[0]
        monkeypatch.undo()
        hangs.set()
        async with asyncio.timeout(LIMIT_S):
            while [entry.comment for entry in (await file.look()).entries] != ["bob"]:
                pass
        assert file.problems == ()
    finally:
        hangs.set()
        file.close()


async def test_a_large_file_does_not_hold_the_loop(tmp_path: Path) -> None:
    """Attack: `touch` on a file of 100,000 keys held the loop for longer than a node may hang.

    The loop is asked for a turn again and again while the thread parses: it gets most of its turns.
    """
    path = tmp_path / "authorized_keys"
    path.write_text("")
    file = KeyFile(path)
    await file.start()
    turns = 0
    try:
        path.write_text("".join(f"{numbered(number)} u{number}\n" for number in range(20_000)))
        file.reload()
        async with asyncio.timeout(LIMIT_S):
            while len(file.keys.entries) < 20_000:
                await asyncio.sleep(0.001)
                turns += 1
    finally:
        file.close()
    assert turns > 20
