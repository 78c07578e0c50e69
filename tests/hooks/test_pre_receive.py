"""The pre-receive hook: who may push by another way than the gate of a leading node? Nobody."""

import asyncio
import fcntl
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from stargate_gate.datadir.layout import DataDir
from stargate_gate.datadir.locks import LeadingLock, open_lock_file, try_lock
from stargate_gate.share import shared_dir
from tests.support.git import git, git_run
from tests.support.room import Room

LIMIT_S = 20.0
LEAD = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(fd, fcntl.LOCK_EX)
os.write(fd, b"t0ken\\n")
print("ready", flush=True)
input()
"""


@pytest.fixture
def leader(room: Room) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that leads with the token `t0ken` until it is killed."""
    argv = [sys.executable, "-c", LEAD, str(room.datadir.leading_lock)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    yield process
    process.kill()
    process.communicate()


def run_hook(
    datadir: DataDir, env: Mapping[str, str] | None = None, path: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [path or datadir.hooks / "pre-receive"],
        env={"PATH": os.environ["PATH"], **(env or {})},
        input="",
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def push(work: Path, repository: Path, **env: str) -> "subprocess.CompletedProcess[bytes]":
    return git_run("push", repository, "HEAD:refs/heads/main", cwd=work, env=env)


async def lead_and_release(datadir: DataDir) -> None:
    lock = LeadingLock(datadir)
    await lock.acquire(LIMIT_S)
    lock.release()


def test_a_push_by_path_to_a_node_that_never_led_is_refused(room: Room, repository: Path, work: Path) -> None:
    """The lock file is not there yet: not leader, said to the user, and no ref moves."""
    done = push(work, repository)
    assert done.returncode == 1
    assert b"remote: not leader: " in done.stderr
    assert b"pre-receive hook declined" in done.stderr
    assert git("for-each-ref", cwd=repository) == ""
    assert run_hook(room.datadir).returncode == 9
    assert not room.datadir.leading_lock.exists()


async def test_a_push_by_path_to_a_standby_is_refused(room: Room, repository: Path, work: Path) -> None:
    """It led once and does not now."""
    await lead_and_release(room.datadir)
    done = push(work, repository)
    assert done.returncode == 1
    assert b"remote: not leader: this node is a standby" in done.stderr
    assert run_hook(room.datadir).returncode == 9


@pytest.mark.usefixtures("leader")
def test_a_push_by_path_to_the_leader_is_sent_to_ssh(room: Room, repository: Path, work: Path) -> None:
    """It would not be replicated: 77, whatever token the pusher makes up."""
    for token in ("", "wrong", "t0ken ", "t0ke", "t0ken\nx", "*", "[a-z0-9]*"):
        assert run_hook(room.datadir, {"STARGATE_GATE_TOKEN": token}).returncode == 77
    assert run_hook(room.datadir).returncode == 77
    done = push(work, repository)
    assert done.returncode == 1
    assert b"remote: not allowed: push through ssh" in done.stderr
    assert git("for-each-ref", cwd=repository) == ""


@pytest.mark.usefixtures("leader")
def test_the_gates_push_passes(room: Room, repository: Path, work: Path) -> None:
    """The token of this leadership opens, silently, also for thousands of refs."""
    done = run_hook(room.datadir, {"STARGATE_GATE_TOKEN": "t0ken"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    refs = [f"HEAD:refs/heads/branch-with-a-long-name-{number}" for number in range(3000)]
    done_push = git_run("push", "-q", repository, *refs, cwd=work, env={"STARGATE_GATE_TOKEN": "t0ken"})
    assert (done_push.returncode, done_push.stderr) == (0, b"")
    assert len(git("for-each-ref", cwd=repository).splitlines()) == 3000


@pytest.mark.usefixtures("leader")
def test_a_leader_that_is_just_taking_over_has_no_token(room: Room) -> None:
    """Between lock and token an empty token opens nothing."""
    for content in ("", "\n", "\nt0ken\n"):
        room.datadir.leading_lock.write_text(content)
        for token in ("", "t0ken"):
            assert run_hook(room.datadir, {"STARGATE_GATE_TOKEN": token}).returncode == 77


def test_a_killed_leader_does_not_lead(
    room: Room, repository: Path, work: Path, leader: "subprocess.Popen[bytes]"
) -> None:
    """Right after `kill -9` the old token opens nothing: the kernel says that nobody leads."""
    assert run_hook(room.datadir, {"STARGATE_GATE_TOKEN": "t0ken"}).returncode == 0
    leader.kill()
    leader.wait()
    assert room.datadir.leading_lock.read_text() == "t0ken\n"
    done = run_hook(room.datadir, {"STARGATE_GATE_TOKEN": "t0ken"})
    assert done.returncode == 9
    assert "not leader" in done.stderr
    assert b"not leader" in push(work, repository, STARGATE_GATE_TOKEN="t0ken").stderr


@pytest.mark.usefixtures("leader")
def test_any_doubt_means_not_leader(room: Room, tmp_path: Path) -> None:
    """No lock file, a folder in its place, no flock(1), the hook at another place."""
    good = {"STARGATE_GATE_TOKEN": "t0ken"}
    script = (room.datadir.hooks / "pre-receive").read_text()

    without_flock = room.datadir.hooks / "without"
    without_flock.write_text(script.replace("PATH=/usr/bin:/bin:/usr/local/bin:$PATH", "PATH=/nowhere"))
    without_flock.chmod(0o755)
    done = run_hook(room.datadir, good, without_flock)
    assert (done.returncode, "flock(1)" in done.stderr) == (9, True)

    elsewhere = tmp_path / "pre-receive"
    shutil.copy(room.datadir.hooks / "pre-receive", elsewhere)
    assert run_hook(room.datadir, good, elsewhere).returncode == 9
    linked = tmp_path / "linked"
    linked.symlink_to(room.datadir.hooks / "pre-receive")
    assert run_hook(room.datadir, good, linked).returncode == 9

    room.datadir.leading_lock.unlink()
    assert run_hook(room.datadir, good).returncode == 9
    room.datadir.leading_lock.mkdir()
    assert run_hook(room.datadir, good).returncode == 9


def test_the_environment_fools_nobody(room: Room, tmp_path: Path, leader: "subprocess.Popen[bytes]") -> None:
    """A flock of the pusher's own on PATH, GIT_DIR, ENV, IFS: the answer stays."""
    fake = tmp_path / "flock"
    fake.write_text("#!/bin/sh\nexit 75\n")
    fake.chmod(0o755)
    trick = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "GIT_DIR": "/nowhere",
        "GIT_QUARANTINE_PATH": "/nowhere",
        "ENV": str(fake),
        "BASH_ENV": str(fake),
        "IFS": "0",
        "CDPATH": "/",
        "lock": "/dev/null",
        "token": "x",
        "STARGATE_GATE_TOKEN": "t0ken",
    }
    assert run_hook(room.datadir, trick).returncode == 0
    leader.kill()
    leader.wait()
    assert run_hook(room.datadir, trick).returncode == 9


async def test_a_leader_gets_its_lock_through_a_crowd_of_probes(room: Room) -> None:
    """Hooks that ask all the time delay a new leader by moments, and each gets a right answer."""
    await lead_and_release(room.datadir)
    script = f"while :; do {room.datadir.hooks}/pre-receive </dev/null 2>/dev/null; echo $?; done"
    crowd = [
        subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True)
        for _ in range(4)
    ]
    waits_s = []
    try:
        for process in crowd:
            assert process.stdout is not None
            process.stdout.readline()
        for _ in range(50):
            began = time.monotonic()
            lock = LeadingLock(room.datadir)
            await lock.acquire(LIMIT_S)
            waits_s.append(time.monotonic() - began)
            lock.release()
    finally:
        for process in crowd:
            os.killpg(process.pid, 9)
        outputs = [process.communicate()[0] for process in crowd]
    answers = {line for output in outputs for line in output.split(b"\n")[:-1]}
    assert answers <= {b"9", b"77"}
    assert statistics.median(waits_s) < 1


async def test_a_probe_leaves_the_lock_free(room: Room) -> None:
    """No descriptor outlives the hook, and none reaches what it starts."""
    await lead_and_release(room.datadir)
    await asyncio.gather(*(asyncio.to_thread(run_hook, room.datadir) for _ in range(10)))
    fd = open_lock_file(room.datadir.leading_lock)
    try:
        assert try_lock(fd, fcntl.LOCK_EX)
    finally:
        os.close(fd)


def test_it_is_plain_sh() -> None:
    """Each shell that may be /bin/sh takes it."""
    script = shared_dir("hooks") / "pre-receive"
    for shell in ("sh", "dash", "bash", "busybox"):
        if shutil.which(shell):
            argv = [shell, "sh", "-n"] if shell == "busybox" else [shell, "-n"]
            assert subprocess.run([*argv, script], check=False).returncode == 0
    if shutil.which("shellcheck"):
        assert subprocess.run(["shellcheck", script], check=False).returncode == 0
