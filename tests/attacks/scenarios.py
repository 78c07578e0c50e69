"""All attacks by name. A new one: a file with `attack(target)`, and a line here."""

from collections.abc import Callable, Mapping

from tests.attacks import door, http, kex, keyfile, packets, sessions, windows
from tests.attacks.target import Target

SCENARIOS: Mapping[str, Callable[[Target], None]] = {
    "kex": kex.attack,
    "door": door.attack,
    "http": http.attack,
    "keyfile": keyfile.attack,
    "packets": packets.attack,
    "sessions": sessions.attack,
    "windows": windows.attack,
}
