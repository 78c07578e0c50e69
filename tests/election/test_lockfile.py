"""The lock file as a node meets it: real files, and a remedy in every message."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stargate_gate.election.flock.bootstrap import bootstrap, bootstrap_single
from stargate_gate.election.flock.engine import lock_exclusively
from stargate_gate.election.flock.lockfile import (
    check_mount,
    file_id,
    open_existing,
    opened,
    read_slots,
    record_of,
    unavailable,
    write_all,
)
from stargate_gate.election.flock.slots import SLOT_BYTES, STAMP_BYTES, STAMP_OFFSET, Slots, in_force
from stargate_gate.election.port import ClusterRecord
from stargate_gate.errors import ElectionUnavailableError, UsageError
from tests.support.elections import member, state_of

A = member("a")


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "shared" / "leader.lock"


@pytest.fixture
def made(tmp_path: Path, lock: Path) -> Path:
    """The lock file of a cluster that node-a bootstrapped."""
    lock.parent.mkdir()
    bootstrap(lock, state_of(tmp_path, "a"), A)
    return lock


def slots_at(path: Path) -> Slots:
    with opened(path, os.O_RDONLY) as fd:
        return read_slots(path, fd)


def test_bootstrap_makes_the_whole_file_and_joins(tmp_path: Path, made: Path):
    """Term 0, this node first, an id of its own; nothing else is left in the folder."""
    record = in_force(slots_at(made))
    assert record is not None
    assert (record.term, record.version, record.leader, record.sync_set) == (0, 1, A, ())
    assert made.stat().st_size == STAMP_OFFSET + STAMP_BYTES
    assert state_of(tmp_path, "a").known.cluster_id == record.cluster_id
    assert [path.name for path in made.parent.iterdir()] == ["leader.lock"]


def test_two_clusters_have_two_ids(tmp_path: Path):
    """A recreated volume is told from the one before."""
    ids = {
        bootstrap(tmp_path / f"{name}.lock", state_of(tmp_path, name), A).cluster_id for name in ("x", "y")
    }
    assert len(ids) == 2


def test_bootstrap_refuses_where_a_cluster_is(tmp_path: Path, made: Path):
    """From another data_dir, and from the one that made it; the file stays as it was."""
    before = made.read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        bootstrap(made, state_of(tmp_path, "b"), member("b"))
    with pytest.raises(UsageError, match="already joined"):
        bootstrap(made, state_of(tmp_path, "a"), A)
    assert made.read_bytes() == before
    assert state_of(tmp_path, "b").known.cluster_id is None


def test_bootstrap_refuses_a_data_dir_that_has_joined_even_if_the_file_is_gone(tmp_path: Path, made: Path):
    """A lost volume is no first start."""
    made.unlink()
    with pytest.raises(UsageError, match="already joined"):
        bootstrap(made, state_of(tmp_path, "a"), A)
    assert not made.exists()


def test_bootstrap_replaces_an_empty_file_unless_somebody_holds_it(tmp_path: Path, lock: Path):
    """`touch leader.lock` loses nothing; a lock on it may be somebody's."""
    lock.parent.mkdir()
    lock.touch()
    fd = os.open(lock, os.O_RDWR)
    try:
        assert lock_exclusively(fd)
        with pytest.raises(UsageError):
            bootstrap(lock, state_of(tmp_path, "a"), A)
        assert lock.stat().st_size == 0
    finally:
        os.close(fd)
    bootstrap(lock, state_of(tmp_path, "a"), A)
    assert lock.stat().st_size == STAMP_OFFSET + STAMP_BYTES


def test_of_many_bootstraps_at_once_one_succeeds(tmp_path: Path):
    """Real processes, an empty file in the way: one cluster, and the others say that it exists."""
    (tmp_path / "leader.lock").touch()
    program = (
        "import sys; from pathlib import Path\n"
        "from stargate_gate.election.flock.bootstrap import bootstrap\n"
        "from stargate_gate.errors import UsageError\n"
        "from tests.support.elections import member, state_of\n"
        "root, name = Path(sys.argv[1]), sys.argv[2]\n"
        "state = state_of(root, name)\n"
        "sys.stdin.read()\n"
        "try: bootstrap(root / 'leader.lock', state, member(name))\n"
        "except UsageError: sys.exit(64)\n"
    )
    racers = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), name], stdin=subprocess.PIPE)
        for name in "abcd"
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.close()
    assert sorted(racer.wait(30) for racer in racers) == [0, 64, 64, 64]
    assert in_force(slots_at(tmp_path / "leader.lock")) is not None


def test_bootstrap_in_a_folder_that_is_not_there_says_to_mount_it(tmp_path: Path, lock: Path):
    """No folder is made on the way: it would be on the wrong disk."""
    with pytest.raises(ElectionUnavailableError, match="mount the shared volume"):
        bootstrap(lock, state_of(tmp_path, "a"), A)
    assert not lock.parent.exists()


def test_a_single_node_makes_its_own_file_once(tmp_path: Path):
    """At its first start, and never again: a lost file is trouble, not a beginning."""
    path = tmp_path / "own.lock"
    state = state_of(tmp_path, "a")
    bootstrap_single(path, state, A)
    first = path.read_bytes()
    bootstrap_single(path, state, A)
    assert path.read_bytes() == first
    path.unlink()
    bootstrap_single(path, state, A)
    assert not path.exists()


def test_opening_never_makes_the_file(lock: Path):
    """Missing folder and missing file are told apart, and both say what to do."""
    with pytest.raises(ElectionUnavailableError, match="its directory is missing"):
        open_existing(lock, os.O_RDWR)
    lock.parent.mkdir()
    with pytest.raises(ElectionUnavailableError, match="its directory is there, the file is not"):
        open_existing(lock, os.O_RDWR)
    assert list(lock.parent.iterdir()) == []


def test_no_child_inherits_the_descriptor(made: Path):
    """A git process that lives on must not keep the leader lock."""
    with opened(made, os.O_RDWR) as fd:
        assert not os.get_inheritable(fd)


def test_the_lock_is_free_when_its_descriptor_is_closed(made: Path):
    """One at a time, by descriptor; closing lets go."""
    with opened(made, os.O_RDWR) as first, opened(made, os.O_RDWR) as second:
        assert file_id(first) == file_id(second)
        assert lock_exclusively(first)
        assert not lock_exclusively(second)
    with opened(made, os.O_RDWR) as third:
        assert lock_exclusively(third)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (bytes(STAMP_OFFSET + STAMP_BYTES), "is empty"),
        (b"something else", "holds no whole cluster record"),
    ],
)
def test_a_file_without_a_record_is_never_a_first_start(lock: Path, content: bytes, words: str):
    """Truncated and foreign files are told apart, and neither is written to."""
    lock.parent.mkdir()
    lock.write_bytes(content)
    with pytest.raises(ElectionUnavailableError, match=words):
        record_of(lock, slots_at(lock))
    assert lock.read_bytes() == content


def test_the_heartbeat_stamp_is_outside_every_slot(made: Path):
    """A stamp changes no record."""
    before = slots_at(made)
    with opened(made, os.O_RDWR) as fd:
        write_all(fd, b"heartbeat", STAMP_OFFSET)
    assert slots_at(made) == before


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "read and write it"),
        (errno.EROFS, "mount the shared volume writable"),
        (errno.ENOSPC, "make room"),
        (errno.EISDIR, "correct election.flock.path"),
        (errno.ESTALE, "mount the shared volume again"),
        (errno.ENOLCK, "start the lock service"),
        (errno.ENXIO, "check the shared volume"),
    ],
)
def test_every_failure_names_the_file_and_a_remedy(lock: Path, number: int, words: str):
    """An operator at night needs no source code."""
    message = unavailable(lock, OSError(number, os.strerror(number))).message
    assert words in message
    assert str(lock) in message
    assert os.strerror(number) in message


def test_a_folder_in_place_of_the_file_is_said(tmp_path: Path):
    """A real one: the kernel's word for it leads to the configuration key."""
    with pytest.raises(ElectionUnavailableError, match=r"election\.flock\.path"):
        open_existing(tmp_path, os.O_RDWR)


def test_the_file_system_of_this_test_may_keep_the_lock(tmp_path: Path):
    """The real mountinfo is read, through symlinks."""
    (tmp_path / "link").symlink_to(tmp_path)
    check_mount(tmp_path / "link" / "leader.lock")


def test_a_lock_file_that_version_0_1_wrote_is_read() -> None:
    """It has had three leaders: the record of term 3 is in force, and no slot counts as damaged."""
    slots = slots_at(Path(__file__).parents[1] / "data" / "0.1" / "term-3.lock")
    record = in_force(slots)
    assert record is not None
    assert (record.term, record.version, record.position) == (3, 2, 7)
    assert (record.leader.name, [member.name for member in record.sync_set]) == ("node-a", ["node-b"])
    assert all(isinstance(slot, ClusterRecord) for slot in slots.contents)


@pytest.mark.parametrize("slot", range(6))
def test_one_slot_of_a_newer_format_is_enough_to_refuse_the_file(made: Path, slot: int) -> None:
    """It may have a larger term than all that can be read here."""
    content = bytearray(made.read_bytes())
    head = b"stargate cluster record, format 2; whatever follows"
    content[slot * SLOT_BYTES : slot * SLOT_BYTES + len(head)] = head
    made.write_bytes(content)
    with pytest.raises(ElectionUnavailableError, match=r"has format 2.*update stargate on this node"):
        slots_at(made)
