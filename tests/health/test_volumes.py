"""How much room there is, on a real volume, and when that is too little."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from stargate_gate.health.room import shortages
from stargate_gate.health.volumes import Volumes
from stargate_gate.status import VolumeStatus
from tests.support.cluster import eventually

GIB, MIB = 2**30, 2**20
DISK = VolumeStatus("data_dir", "/d", 1.0, 50 * GIB, 100 * GIB, 6_000_000, 6_553_600)
LOCK = VolumeStatus("lock volume", "/m", 1.0, 900 * MIB, 1024 * MIB)


def test_a_volume_is_measured_and_one_that_is_gone_is_not_known(tmp_path: Path) -> None:
    """Without a measurement there are no figures, and the problem is named."""
    volumes = Volumes({"data_dir": tmp_path, "lock volume": tmp_path / "not mounted"})
    before, _ = volumes.status()
    assert (before.measured_s, before.free_bytes) == (None, None)
    volumes.start()
    try:
        eventually(lambda: volumes.status()[0].measured_s is not None, "the first is measured")
        eventually(lambda: "No such file" in (volumes.status()[1].problem or ""), "the second cannot be")
        here, gone = volumes.status()
        room = os.statvfs(tmp_path)
        assert here.total_bytes == room.f_blocks * room.f_frsize
        assert here.free_bytes is not None
        assert 0 < here.free_bytes <= here.total_bytes
        assert gone.free_bytes is None
    finally:
        volumes.stop()


@pytest.mark.parametrize(
    ("volume", "kinds"),
    [
        (DISK, []),
        (replace(DISK, free_bytes=10 * GIB), []),
        (replace(DISK, free_bytes=10 * GIB - 1), ["disk_low"]),
        (replace(DISK, free_bytes=2 * GIB), ["disk_low"]),
        (replace(DISK, free_bytes=2 * GIB - 1), ["disk_full"]),
        (replace(DISK, total_bytes=10_000 * GIB, free_bytes=20 * GIB), []),
        (replace(DISK, total_bytes=10_000 * GIB, free_bytes=20 * GIB - 1), ["disk_low"]),
        (replace(DISK, total_bytes=1000 * MIB, free_bytes=101 * MIB), []),
        (replace(DISK, total_bytes=1000 * MIB, free_bytes=99 * MIB), ["disk_low"]),
        (replace(DISK, total_bytes=1000 * MIB, free_bytes=29 * MIB), ["disk_full"]),
        (replace(DISK, free_inodes=99_999), ["disk_low"]),
        (replace(DISK, free_inodes=9_999, free_bytes=0), ["disk_full", "disk_full"]),
        (replace(DISK, free_inodes=None, total_inodes=None), []),
        (replace(DISK, total_bytes=0, free_bytes=0), []),  # some file systems do not say
        (replace(DISK, measured_s=61.0), ["disk_unknown"]),
        (replace(DISK, measured_s=None, free_bytes=None), ["disk_unknown"]),
        (LOCK, []),
        (replace(LOCK, free_bytes=99 * MIB), ["disk_low"]),
        (replace(LOCK, free_bytes=9 * MIB), ["disk_full"]),
    ],
)
def test_when_the_room_is_too_little(volume: VolumeStatus, kinds: list[str]) -> None:
    """A share of the volume, and never more than a fixed amount."""
    assert [one.kind for one in shortages(volume, up_s=100.0)] == kinds


def test_a_node_that_was_just_started_has_not_measured_yet() -> None:
    """That is no concern for a minute."""
    assert list(shortages(replace(DISK, measured_s=None, free_bytes=None), up_s=59.0)) == []
