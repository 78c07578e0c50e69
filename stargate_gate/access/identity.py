"""Who is asking, and how much they may do."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Access: TypeAlias = Literal["read", "write", "admin", "peer"]

MAX_USER_LENGTH = 100  # a log line stays a line


@dataclass(frozen=True)
class Identity:
    """Made from the key that really authenticated, and from nothing that the client says.

    user         STARGATE_USER of the key's entry, else its comment, else the fingerprint
    access       "peer" is the cluster's own key, and never comes from authorized_keys
    fingerprint  "SHA256:…", as ssh-keygen -l prints it
    source       the client's address, without a port
    """

    user: str
    access: Access
    fingerprint: str
    source: str
