"""The error of both cores, `LeaderTerm` and `StandbySession`, for an event that cannot happen now. Pure."""

MAX_SHOWN = 150  # characters of an event in an error: it may hold all refs of a repository


class IllegalEventError(RuntimeError):
    """An event that this state does not allow: the shell or the core has a bug. The core is as it was."""

    def __init__(self, event: object, state: str) -> None:
        super().__init__(f"{repr(event)[:MAX_SHOWN]} is not allowed here: {state}")
