"""The local locks of a data_dir: the node lock and the leading lock.

They use flock(2) on local files, not on the shared volume. A lock belongs to the open file description: a
process that inherits the descriptor holds the lock, too, even after a `kill -9` of the node. So every
descriptor is close-on-exec, except that of the writers lock (writers.py), which is meant to be inherited.
"""

import asyncio
import contextlib
import fcntl
import os
import secrets
import subprocess
from typing import Self

from stargate_gate.aio.children import exited
from stargate_gate.datadir.layout import DataDir
from stargate_gate.errors import UnavailableError

TOKEN_BYTES = 32
PROBE_GRACE_S = 1.0  # flock(1) ends by itself at its limit, but a machine that was asleep is late
FLOCK_CONFLICT = 75  # the exit status that flock(1) is told to use at its limit


def open_lock_file(path: str | os.PathLike[str]) -> int:
    """A close-on-exec descriptor of the lock file at `path`, made if missing (0600). A link is refused."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def try_lock(fd: int, kind: int) -> bool:
    """Take the flock `kind` (LOCK_EX or LOCK_SH) on `fd` if it is free now. Returns whether it was."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class NodeLock:
    """Held exclusively by a running `stargate serve`, so that a data_dir has one node only."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def acquire(cls, datadir: DataDir) -> Self:
        """Take it without waiting.

        Raises:
            UnavailableError: another node runs on this data_dir.
        """
        fd = open_lock_file(datadir.node_lock)
        try:
            _take_or_name_owner(fd)
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd)

    def close(self) -> None:
        """Release it. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _take_or_name_owner(fd: int) -> None:
    if try_lock(fd, fcntl.LOCK_EX):
        return
    owner = os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
    raise UnavailableError(
        f"another stargate serve runs on this data_dir (pid {owner}): stop it first, "
        "or give this one a data_dir of its own"
    )


class LeadingLock:
    """Held exclusively while this node leads. The pre-receive hook tries it to see if a node leads here.

    The kernel releases it when the node dies. Only one task may use this object at a time.
    """

    def __init__(self, datadir: DataDir) -> None:
        self._path = datadir.leading_lock
        self._fd: int | None = None
        self._token = ""

    @property
    def token(self) -> str:
        """The token of this leadership, "" when not held."""
        return self._token

    async def acquire(self, limit_s: float) -> str:
        """Take the lock and write a new token into its file; returns the token (64 hex digits).

        Hooks that test the lock hold it for a moment, again and again. So this waits in the kernel's queue,
        by running flock(1); attempts without waiting failed nearly always (tried).

        Raises:
            UnavailableError: it was not free within `limit_s` seconds, or flock(1) is missing.
            OSError: the file cannot be opened or written.
        """
        if self._fd is not None:
            raise RuntimeError("the leading lock is held already")
        fd = open_lock_file(self._path)
        try:
            os.fchmod(fd, 0o600)
            await _lock_in_kernel_queue(fd, limit_s)
            token = secrets.token_hex(TOKEN_BYTES)
            os.ftruncate(fd, 0)
            os.pwrite(fd, token.encode() + b"\n", 0)
        except BaseException:
            os.close(fd)
            raise
        self._fd, self._token = fd, token
        return token

    def release(self) -> None:
        """Remove the token and release the lock. Idempotent."""
        fd, self._fd, self._token = self._fd, None, ""
        if fd is None:
            return
        try:
            # The token goes first. Else a push of this leadership could pass the hook when the next
            # leadership has the lock and has not written its own token yet.
            with contextlib.suppress(OSError):  # a full or broken disk must not keep the lock
                os.ftruncate(fd, 0)
        finally:
            os.close(fd)


async def _lock_in_kernel_queue(fd: int, limit_s: float) -> None:
    """Wait for the exclusive flock on `fd` in a child process that inherits the descriptor.

    The child is flock(1) from util-linux. The lock that it takes belongs to the shared open file description,
    so `fd` still has it when the child has ended. If the wait is cancelled, the child is killed.
    """
    if try_lock(fd, fcntl.LOCK_EX):
        return
    argv = ["flock", "-x", "-w", f"{max(limit_s, 0.001):.3f}", "-E", str(FLOCK_CONFLICT), str(fd)]
    try:
        child = subprocess.Popen(  # noqa: ASYNC220 - spawning does not block; waiting happens elsewhere
            argv,
            pass_fds=(fd,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise UnavailableError("flock(1) is missing on this machine: install util-linux") from error
    try:
        async with asyncio.timeout(limit_s + PROBE_GRACE_S):
            await exited(child.pid)
            status = child.wait()
    except TimeoutError:
        status = FLOCK_CONFLICT
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    if status == FLOCK_CONFLICT:
        raise UnavailableError(f"the leading lock could not be had within {limit_s:g} s")
    if status != 0:
        raise UnavailableError(f"flock(1) failed with status {status}: is it the one from util-linux?")
