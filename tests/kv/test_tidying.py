"""What is left in the user's repository stays bounded."""

import hashlib
import time

import pytest

from stargate_gate.kv.tidying import LEFT_OVER_MS, tidy
from stargate_gate.kv.ulid import moment_ms, ulid
from tests.support.git import git
from tests.support.kv import Kv


def test_what_a_killed_command_left_goes_after_a_while(kv: Kv, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its refs, and nobody else's."""
    kv.ok("set", "k", "v")
    now_ms = time.time_ns() // 10**6
    moments_ms = (now_ms - LEFT_OVER_MS - 1, now_ms - LEFT_OVER_MS + 60_000)
    old, young = (ulid(moment, bytes(10)) for moment in moments_ms)
    for name in (old, young):
        kv.git("update-ref", f"refs/kv-fetch/{name}/ledger", "refs/kv-remotes/origin/main/ledger")
    monkeypatch.chdir(kv.path)
    tidy(now_ms)
    assert kv.git("for-each-ref", "--format=%(refname)").split() == [
        f"refs/kv-fetch/{young}/ledger",
        "refs/kv-remotes/origin/main/index",
        "refs/kv-remotes/origin/main/ledger",
    ]
    assert kv.ok("get", "k") == b"v"


def test_git_packs_what_has_piled_up(kv: Kv, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the user's own settings say that it is time."""
    kv.ok("set", "k", "v")
    monkeypatch.chdir(kv.path)
    kv.git("config", "gc.autoDetach", "false")
    kv.git("config", "gc.auto", "0")
    tidy(0)
    assert "in-pack: 0" in kv.git("count-objects", "-v")
    kv.git("config", "gc.auto", "1")
    for text in map(str, range(2000)):  # git looks into one of the 256 folders of loose objects, "17"
        if hashlib.sha1(f"blob {len(text)}\0{text}".encode()).hexdigest().startswith("17"):
            git("hash-object", "-w", "--stdin", cwd=kv.path, given=text.encode())
    tidy(0)
    assert "in-pack: 0" not in kv.git("count-objects", "-v")


def test_a_ulid_tells_its_time() -> None:
    """To the millisecond; and what is none tells nothing."""
    assert moment_ms(ulid(1_469_922_850_259, b"\xff" * 10)) == 1_469_922_850_259
    assert moment_ms("x") == moment_ms("U" * 26) == 0
