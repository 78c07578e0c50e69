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


class IllegalEventError(Exception):
    """A bug: this event is not allowed in this state."""

    def __init__(self, event: object, state: State) -> None:
        super().__init__(f"{type(event).__name__} is not allowed while {state.value}")
