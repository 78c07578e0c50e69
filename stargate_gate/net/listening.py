"""The message for operators when an address of the configuration cannot be listened on. Pure."""

import errno
import os


def cannot_listen(key: str, endpoint: object, error: OSError) -> str:
    """One line with a remedy. `key` is the key in the YAML file, `endpoint` its value as host:port.

    asyncio's own text is used only if there is no error number: it repeats the address.
    """
    if error.errno == errno.EADDRINUSE:
        return f"{key}: {endpoint} is in use by another program: stop that, or choose another port"
    reason = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)
    return f"{key}: cannot listen on {endpoint} ({reason}): name an address of this machine"
