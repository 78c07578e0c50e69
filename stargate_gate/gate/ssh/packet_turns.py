"""Which connection handles its packets when: nothing that clients send holds the event loop for long.

asyncssh handles all packets of a read at once, and the event loop reads from every connection before it
does anything else. 256 KiB hold 16,000 of the smallest packets, which take a third of a second: so 20
connections of a stranger held the loop for longer than the watchdog allows, and ended the node.

Here a connection handles packets for SHARE_S, and all connections together for BUDGET_S, in each round of
the event loop. Who has more is not read from meanwhile, and goes on when its turn comes again. While
nobody has more than that, each read is handled at once, as asyncssh does.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

SHARE_S = 0.002  # some 50 of the smallest packets; a transfer's 64 KiB take a tenth of it
BUDGET_S = 0.02  # far below election.watchdog_s, also on a machine that is ten times as slow


class Reader(Protocol):
    """One connection. Hashed by identity."""

    def handle_packets(self, until_s: float) -> bool:
        """Handle what has come, until then on a monotonic clock; whether there is more to do."""

    def has_turn(self, *, waits: bool) -> None:
        """It waits for its next turn now, or no more."""


class PacketTurns:
    """One per listener; all calls are for the event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: dict[Reader, None] = {}  # in the order of their turns
        self._spent_s = 0.0  # in this round of the loop
        self._next: asyncio.Handle | None = None

    def offer(self, reader: Reader) -> None:
        """Something has come for `reader`: now is its turn, or later."""
        if reader in self._waiting:
            return
        if self._waiting or self._spent_s >= BUDGET_S or self._run(reader):
            self._waiting[reader] = None
        self._next = self._next or asyncio.get_running_loop().call_soon(self._round)
        reader.has_turn(waits=reader in self._waiting)

    def _round(self) -> None:
        self._next = None
        self._spent_s = 0.0
        while self._waiting and self._spent_s < BUDGET_S:
            reader = next(iter(self._waiting))
            del self._waiting[reader]
            if self._run(reader):
                self._waiting[reader] = None
            else:
                reader.has_turn(waits=False)
        if self._waiting and self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._round)

    def _run(self, reader: Reader) -> bool:
        began_s = self._clock()
        try:
            return reader.handle_packets(began_s + SHARE_S)
        finally:
            self._spent_s += self._clock() - began_s
