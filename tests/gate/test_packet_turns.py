"""Turns for packets: a clock that only packets move, and readers that cost what they say."""

import asyncio
from collections.abc import Callable

from stargate_gate.gate.ssh.backpressure import BUDGET_S, SHARE_S, PacketTurns

PACKET_S = SHARE_S / 4


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Flood:
    """A reader with so many packets, each of which takes PACKET_S."""

    def __init__(self, clock: Clock, packets: int, last: Callable[[], None] = lambda: None) -> None:
        self._clock = clock
        self.packets = packets
        self.last = last
        self.waits = False

    def handle_packets(self, until_s: float) -> bool:
        while self.packets:
            self._clock.now_s += PACKET_S
            self.packets -= 1
            if not self.packets:
                self.last()
            if self._clock() >= until_s:
                break
        return self.packets > 0

    def has_turn(self, *, waits: bool) -> None:
        self.waits = waits


async def test_a_few_packets_are_handled_at_once() -> None:
    clock = Clock()
    turns, reader = PacketTurns(clock), Flood(clock, 2)
    turns.offer(reader)
    assert (reader.packets, reader.waits) == (0, False)


async def test_floods_leave_the_loop_to_others_after_each_budget() -> None:
    """Attack: 20 connections with 256 KiB of the smallest packets held the loop for seconds."""
    clock = Clock()
    turns, floods = PacketTurns(clock), [Flood(clock, 1000) for _ in range(20)]
    longest_s, seen_s = 0.0, clock()
    for flood in floods:
        turns.offer(flood)
    assert all(flood.waits for flood in floods)
    while any(flood.packets for flood in floods):
        longest_s, seen_s = max(longest_s, clock() - seen_s), clock()
        await asyncio.sleep(0)
    assert longest_s <= 2 * (BUDGET_S + SHARE_S)
    await asyncio.sleep(0)
    assert not any(flood.waits for flood in floods)


async def test_a_reader_with_few_packets_does_not_wait_for_floods() -> None:
    """Each reader has a turn before one has a second turn."""
    clock = Clock()
    turns, floods = PacketTurns(clock), [Flood(clock, 1000) for _ in range(20)]
    for flood in floods:
        turns.offer(flood)
    began_s, ended_s = clock(), list[float]()
    turns.offer(Flood(clock, 1, lambda: ended_s.append(clock())))
    while not ended_s:
        await asyncio.sleep(0)
    assert ended_s[0] - began_s <= (len(floods) + 1) * SHARE_S


async def test_a_reader_that_gets_more_while_it_waits_has_one_turn() -> None:
    clock = Clock()
    turns, flood = PacketTurns(clock), Flood(clock, 1000)
    turns.offer(flood)
    turns.offer(flood)
    while flood.waits:
        await asyncio.sleep(0)
    assert flood.packets == 0
