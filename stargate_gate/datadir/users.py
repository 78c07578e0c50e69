"""Names of users, for messages about files that belong to another user."""

import os
import pwd


def user(uid: int | None = None) -> str:
    """`git (uid 2222)`, or `uid 2222` if it has no name. Without `uid`, the user of this process."""
    number = os.geteuid() if uid is None else uid
    try:
        return f"{pwd.getpwuid(number).pw_name} (uid {number})"
    except KeyError:
        return f"uid {number}"


def run_as(uid: int) -> str:
    """The command by which root runs stargate as that user."""
    try:
        return f"runuser -u {pwd.getpwuid(uid).pw_name} -- stargate ..."
    except KeyError:
        return f"setpriv --reuid {uid} --clear-groups stargate ..."
