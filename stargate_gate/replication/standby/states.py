"""The states of a `StandbySession`; core.py has their theory. Pure."""

import enum


class State(enum.Enum):
    """As drawn in core.py."""

    NEW = "new"
    PREPARING = "preparing"
    OPENING = "opening"
    JOINING = "joining"
    FOLLOWING = "following"
    ENDED = "ended"
