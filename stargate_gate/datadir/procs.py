"""Identifies processes by pid, start time and boot id, so that a reused pid is not mistaken; see proc(5)."""

import contextlib
import os
import signal
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
# Positions of fields 5 and 22 of /proc/PID/stat after the name in brackets, where field 3 is the first.
_GROUP = 2
_START = 19
_TIMES = slice(11, 15)  # utime, stime, and those of children that were waited for: fields 14 to 17
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class ProcessId:
    """One process of one boot of this machine; `start` in clock ticks since boot."""

    pid: int
    start: int
    boot: str

    def alive(self) -> bool:
        """Whether this process still runs; a zombie does not."""
        return process_id(self.pid) == self

    def send(self, number: signal.Signals) -> bool:
        """Signal this process, never another one with the same pid. False if it is gone.

        Raises:
            PermissionError: it belongs to somebody else.
        """
        try:
            pidfd = os.pidfd_open(self.pid)
        except OSError:
            # It is gone, or the kernel has no pidfds: then checking just before the signal must do.
            return self._send_by_number(number)
        try:
            if not self.alive():
                return False
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(pidfd)
        return True

    def send_group(self, number: signal.Signals) -> bool:
        """Signal the process group that this process leads. False if it is gone or leads none."""
        try:
            if not self.alive() or os.getpgid(self.pid) != self.pid:
                return False
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def _send_by_number(self, number: signal.Signals) -> bool:
        try:
            if not self.alive():
                return False
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


def boot_id() -> str:
    """The kernel's random id of this boot."""
    return (PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()


def process_id(pid: int) -> ProcessId | None:
    """The process that runs with `pid` now; None if there is none, or only a zombie."""
    fields = _living(pid)
    return ProcessId(pid, int(fields[_START]), boot_id()) if fields else None


def group_lives(group: int) -> bool:
    """Whether any process of the process group `group` still runs; zombies do not count."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    # The kernel counts zombies until their parent, often process 1, has reaped them.
    return any(fields[_GROUP] == b"%d" % group for fields in map(_living, _pids()) if fields)


def cpu_s(pid: int) -> float:
    """The processor time that `pid` and all its descendants have used so far, in seconds.

    It comes from /proc: a few milliseconds may be missing while a child ends. 0 if there is no such process.
    """
    return sum(_ticks(one) for one in _tree(pid)) / _TICKS_PER_S


def _ticks(pid: int) -> int:
    return sum(map(int, _living(pid)[_TIMES]))


def _tree(pid: int) -> Iterator[int]:
    """`pid` and its descendants that run now."""
    yield pid
    with contextlib.suppress(OSError):
        children = (PROC / str(pid) / "task" / str(pid) / "children").read_bytes()
        for child in children.split():
            yield from _tree(int(child))


def _living(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat after the name; empty if there is no such process, or only a zombie."""
    try:
        fields = (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return fields if len(fields) > _START and fields[0] not in {b"Z", b"X"} else []


def holders_of(path: Path) -> list[ProcessId]:
    """The processes except this one that have the file at `path` open, as far as /proc shows them.

    A flock on an inherited descriptor belongs to all processes that have it open, but /proc/locks names only
    the one that took it.
    """
    try:
        wanted = path.stat()
    except FileNotFoundError:
        return []
    found = []
    for pid in _pids():
        who = process_id(pid) if pid != os.getpid() else None
        if who is not None and _has_open(pid, wanted) and who.alive():
            found.append(who)
    return found


def _pids() -> Iterator[int]:
    with os.scandir(PROC) as entries:
        yield from (int(entry.name) for entry in entries if entry.name.isdigit())


def _has_open(pid: int, wanted: os.stat_result) -> bool:
    folder = PROC / str(pid) / "fd"
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208 - names are enough, and cheap
            with contextlib.suppress(OSError):
                info = (folder / name).stat()
                if stat.S_ISREG(info.st_mode) and os.path.samestat(info, wanted):
                    return True
    return False
