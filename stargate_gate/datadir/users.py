"""Users by name and number, for messages about files that belong to somebody else."""

import os
import pwd


def user(uid: int | None = None) -> str:
    """`git (uid 2222)`; without a number the user of this process. A number without a name stands alone."""
    number = os.geteuid() if uid is None else uid
    try:
        return f"{pwd.getpwuid(number).pw_name} (uid {number})"
    except KeyError:
        return f"uid {number}"


def run_as(uid: int) -> str:
    """How root runs a program as that user."""
    try:
        return f"runuser -u {pwd.getpwuid(uid).pw_name} -- stargate ..."
    except KeyError:
        return f"setpriv --reuid {uid} --clear-groups stargate ..."
