"""Reading a whole file that somebody else may have put there: never from a FIFO or a device, never for ever.

Opening a FIFO waits until somebody writes to it, some devices do something when they are opened, and a
file on a network volume can take as long as that volume likes. Whatever is read while a node runs and is
not the node's own is read by these functions.
"""

import asyncio
import errno
import os
import stat
import threading
from pathlib import Path

READ_LIMIT_S = 5.0  # a local disk that takes longer for one small file serves nobody
KINDS = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def read_regular(path: Path, max_bytes: int) -> tuple[bytes, os.stat_result]:
    """The content of the regular file at `path`, links followed, and its status from before it was read.

    Blocks for the disk, as every read does; not for the event loop.

    Raises:
        OSError: it cannot be read, is no regular file (EINVAL) or is larger than `max_bytes` (EFBIG);
            `strerror` says so.
    """
    _require_regular(path, path.stat())  # before opening it: to open a device may do something already
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with os.fdopen(fd, "rb") as file:
        info = os.fstat(fd)
        _require_regular(path, info)
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {max_bytes} bytes", str(path))
    return content, info


def _require_regular(path: Path, info: os.stat_result) -> None:
    if not stat.S_ISREG(info.st_mode):
        kind = next((name for is_kind, name in KINDS if is_kind(info.st_mode)), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))


async def read_regular_apart(path: Path, max_bytes: int, limit_s: float = READ_LIMIT_S) -> bytes:
    """As `read_regular`, in a thread of its own, which is left behind when it takes longer than `limit_s`.

    Raises:
        OSError: as `read_regular`; ETIMEDOUT after the limit.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()

    def tell(content: bytes | None, error: OSError | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(content or b"")

    def read() -> None:
        content, problem = None, None
        try:
            content, _ = read_regular(path, max_bytes)
        except OSError as error:
            problem = error
        try:
            loop.call_soon_threadsafe(tell, content, problem)
        except RuntimeError:  # the loop has ended meanwhile: nobody waits any more
            return

    threading.Thread(target=read, name="read-file", daemon=True).start()
    try:
        async with asyncio.timeout(limit_s):
            return await answer
    except TimeoutError:
        text = f"it could not be read within {limit_s:g} s"
        raise OSError(errno.ETIMEDOUT, text, str(path)) from None
