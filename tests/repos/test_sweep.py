"""What killed git leaves is removed, and nothing else."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from stargate_gate.datadir.layout import open_data_dir
from stargate_gate.repos.git import git_environment, service_argv
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.repository import Repository
from stargate_gate.repos.sweep import sweep_data_dir, sweep_repository
from tests.support.git import git, git_run, make_work

ROUNDS = 40


def everything(path: Path) -> set[str]:
    return {str(entry.relative_to(path)) for entry in path.rglob("*")}


def test_every_kind_of_leftover_goes_and_all_else_stays(tmp_path: Path) -> None:
    """Lock files of refs and the rest, quarantines, temporary packs and objects, a push's .keep."""
    path = tmp_path / "r.git"
    git("clone", "-q", "--bare", make_work(tmp_path / "work", commits=3), path)
    git("update-ref", "refs/stargate/rescued/1/abc", "HEAD", cwd=path)
    (path / "objects/pack/pack-1234.keep").write_text("an operator's")
    (path / "refs/heads/x.locked").mkdir()
    (path / "refs/heads/dir.lock").mkdir()
    link = path / "objects/zz"
    link.symlink_to(tmp_path)
    before = everything(path)
    leftovers = [
        *(
            "HEAD.lock",
            "config.lock",
            "packed-refs.lock",
            "packed-refs.new",
            "shallow.lock",
            "shallow_Ab12Cd",
        ),
        *("refs/heads/main.lock", "refs/heads/deep/er/x.lock", "refs/stargate/rescued/1/y.lock"),
        *("objects/maintenance.lock", "objects/tmp_obj_Ab12Cd", "objects/ab/tmp_obj_Ab12Cd"),
        *("objects/info/commit-graph.lock", "objects/info/commit-graphs/commit-graph-chain.lock"),
        *("objects/info/commit-graphs/tmp_graph_x", "objects/pack/tmp_pack_x", "objects/pack/tmp_idx_x"),
        *(
            "objects/pack/tmp_rev_x",
            "objects/pack/.tmp-123-pack-abc.pack",
            "objects/pack/multi-pack-index.lock",
        ),
        *("objects/tmp_objdir-incoming-x/pack/tmp_pack_x", "objects/incoming-x/ab/cd", "info/refs_Ab12Cd"),
        *("gc.pid", "gc.pid.lock"),
    ]
    for name in leftovers:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("x")
    (path / "objects/pack/pack-77.keep").write_text("receive-pack 123 on host\n")
    (tmp_path / "tmp_obj_outside").write_text("x")
    removed = sweep_repository(path)
    assert len(removed) == len(leftovers) + 1
    folders = {"refs/heads/deep", "refs/heads/deep/er", "objects/ab", "objects/info/commit-graphs"}
    assert everything(path) - folders == before - folders
    assert (tmp_path / "tmp_obj_outside").exists()
    assert sweep_repository(path) == []
    assert sweep_repository(tmp_path / "gone.git") == []


def test_a_repository_takes_pushes_again_after_every_kill(tmp_path: Path) -> None:
    """`kill -9` of receive-pack's whole group in mid-push, again and again; then sweep and push: it works."""
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    path = tmp_path / "r.git"
    git("init", "-q", "--bare", path)
    work = make_work(tmp_path / "work")
    argv = service_argv("receive-pack", Repository(RepositoryName("r"), path), hooks=hooks)
    swept = 0
    duration_s = 0.02
    for number in range(ROUNDS):
        for branch in range(6):
            (work / f"file-{branch}").write_bytes(os.urandom(20_000))
        git("add", ".", cwd=work)
        git("commit", "-q", "-m", str(number), cwd=work)
        refs = [f"+HEAD:refs/heads/{number}/{branch}" for branch in range(8)]
        pack, commands = _push_bytes(work, path, refs)
        began = time.monotonic()
        server = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=git_environment(),
            start_new_session=True,
        )
        assert server.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            server.stdin.write(commands + pack)
            server.stdin.close()
        if number % 8 == 0:
            server.wait()
            duration_s = time.monotonic() - began
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(duration_s * (number % 8) / 8)
            os.killpg(server.pid, signal.SIGKILL) if server.returncode is None else None
            server.wait()
        swept += bool(sweep_repository(path))
        assert not [name for name in everything(path) if name.endswith(".lock") or "tmp_" in name]
        done = git_run("push", "-q", path, *refs, "+HEAD:refs/heads/main", cwd=work)
        assert done.returncode == 0, done.stderr
    assert swept >= 1, "no kill hit a push at work"
    git("fsck", "--connectivity-only", cwd=path)


def _push_bytes(work: Path, path: Path, refs: list[str]) -> tuple[bytes, bytes]:
    """What a client would send: the pack, and the commands before it."""
    oid = git("rev-parse", "HEAD", cwd=work)
    lines = [f"{'0' * 40} {oid} {ref.partition(':')[2]}".encode() for ref in refs]
    lines[0] += b"\0 report-status"
    commands = b"".join(b"%04x" % (len(line) + 4) + line for line in lines) + b"0000"
    known = [f"^{line}" for line in git("for-each-ref", "--format=%(objectname)", cwd=path).splitlines()]
    given = "\n".join([oid, *sorted(set(known))]).encode() + b"\n"
    done = git_run("pack-objects", "--revs", "--stdout", "-q", cwd=work, given=given)
    assert done.returncode == 0, done.stderr
    return done.stdout, commands


def test_a_starting_node_sweeps_what_was_written_or_all(tmp_path: Path) -> None:
    """And drops half-made repositories."""
    datadir = open_data_dir(tmp_path / "data")
    locks = []
    for name in ("a.git", "org/b.git", "plain"):
        git("init", "-q", "--bare", datadir.repositories / name)
        locks.append(datadir.repositories / name / "HEAD.lock")
        locks[-1].touch()
    half = datadir.repositories / ".new-0123"
    (half / "refs").mkdir(parents=True)
    sweep_data_dir(
        datadir, frozenset({datadir.repositories / "org/b.git", datadir.repositories / "gone.git"})
    )
    assert [lock.exists() for lock in locks] == [True, False, True]
    assert not half.exists()
    sweep_data_dir(datadir, None)
    assert [lock.exists() for lock in locks] == [False, False, False]
