"""Who a client is, and what it may do."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Access: TypeAlias = Literal["read", "write", "admin", "peer"]

MAX_USER_LENGTH = 100  # characters; it is in every log line of a session


@dataclass(frozen=True)
class Identity:
    """Comes from the key that the client has proved, and never from what a client says.

    user         STARGATE_USER of the key's line in authorized_keys, else its comment, else the fingerprint
    access       "peer" for the cluster's own key only; authorized_keys cannot give it
    fingerprint  "SHA256:…", as ssh-keygen -l prints it
    source       the client's address, without a port
    """

    user: str
    access: Access
    fingerprint: str
    source: str
