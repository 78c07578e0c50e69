"""When a volume has too little room. Pure.

A share of the volume, and never more than a fixed amount: a tenth of a very large disk is no shortage.
The lock volume takes a file of 52 KiB, which is there already, so little is enough there.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from stargate_gate.health.concerns import Concern, Kind
from stargate_gate.health.wording import amount, duration
from stargate_gate.status import VolumeStatus

GIB, MIB = 2**30, 2**20
LOW_SHARE, FULL_SHARE = 0.10, 0.03  # of bytes, and of inodes: "disk_low", "disk_full"
LOW_INODES, FULL_INODES = 100_000, 10_000  # but never more than so many
SILENT_S = 60.0  # it is measured every 10 s; what is older is not known any more


@dataclass(frozen=True)
class Caps:
    """At most so many free bytes are asked for."""

    low_bytes: int
    full_bytes: int


CAPS = {"data_dir": Caps(20 * GIB, 2 * GIB), "lock volume": Caps(100 * MIB, 10 * MIB)}


def shortages(volume: VolumeStatus, up_s: float) -> Iterator[Concern]:
    """What is wrong with the room on it. `up_s`: for how long this node has been running, in seconds."""
    age_s = volume.measured_s if volume.measured_s is not None else up_s
    if age_s > SILENT_S:
        why = f": {volume.problem}" if volume.problem else ""
        text = f"{volume.what}: free space not measured for {duration(age_s)} on {volume.path}{why}"
        yield Concern("disk_unknown", text, volume.what)
        return
    when = f"measured {duration(age_s)} ago"
    if volume.free_bytes is not None and volume.total_bytes:
        caps = CAPS[volume.what]
        kind = _shortage(volume.free_bytes, volume.total_bytes, caps.low_bytes, caps.full_bytes)
        if kind is not None:
            share = 100 * volume.free_bytes // volume.total_bytes
            room = f"{amount(volume.free_bytes)} of {amount(volume.total_bytes)} free ({share} %)"
            yield Concern(kind, f"{volume.what}: {room} on {volume.path}, {when}", volume.what)
    if volume.what == "data_dir" and volume.free_inodes is not None and volume.total_inodes:
        kind = _shortage(volume.free_inodes, volume.total_inodes, LOW_INODES, FULL_INODES)
        if kind is not None:
            room = f"{volume.free_inodes} of {volume.total_inodes} inodes free"
            yield Concern(kind, f"{volume.what}: {room} on {volume.path}, {when}", f"{volume.what} inodes")


def _shortage(free: int, total: int, low: int, full: int) -> Kind | None:
    if free < min(full, total * FULL_SHARE):
        return "disk_full"
    return "disk_low" if free < min(low, total * LOW_SHARE) else None
