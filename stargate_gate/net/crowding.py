"""Which connection is closed when there are more connections than places. Pure.

The SSH listener and the HTTP listener use it. Places are shared by network (`addresses.network_of`): a new
connection from a network that has few places gets one from the network that has most. So a client that has
only a few addresses cannot keep others out.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Place(Generic[T]):
    """A place that a connection has.

    network   of the client: `addresses.network_of` its address, or the text itself if that is no address
    since_s   when the connection came, on a monotonic clock
    progress  how far it has come with its login; the connection with the least is closed first
    """

    connection: T
    network: str
    since_s: float
    progress: int = 0


def most_frequent(networks: Iterable[str]) -> tuple[str, int]:
    """The network that occurs most often, and how often; ("", 0) if there is none."""
    return next(iter(Counter(networks).most_common(1)), ("", 0))


def place_to_free(places: Sequence[Place[T]], network: str, came_before_s: float) -> Place[T] | None:
    """The place of `network` that is to be freed: least progress, then oldest; None if all came later."""
    old = [place for place in places if place.network == network and place.since_s <= came_before_s]
    return min(old, key=lambda place: (place.progress, place.since_s), default=None)
