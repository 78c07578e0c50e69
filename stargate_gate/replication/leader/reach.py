"""The leader connects to a standby at its advertised address: a node that cannot be reached must not lead.

A standby that joins has proved that *it* reaches the leader. When it leads, the others have to reach *it*.
So the leader connects to the advertised address as a standby would connect to a leader (with the cluster's
key and the cluster's host keys), and asks for name and data_dir id.
"""

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence

from stargate_gate.aio.backoff import Backoff
from stargate_gate.aio.tasks import finish
from stargate_gate.config.endpoint import Endpoint
from stargate_gate.election.port import Member
from stargate_gate.errors import StargateError, UnavailableError, UsageError
from stargate_gate.replication.peer.connection import Credentials, Peer
from stargate_gate.replication.peer.unreachable import NO_ANSWER
from stargate_gate.replication.ports import Channel
from stargate_gate.replication.wire.about import Whoami, misdirected, not_reached
from stargate_gate.replication.wire.channel import LineReader
from stargate_gate.replication.wire.messages import encode, expect

COMMAND = "stargate-whoami"
NONCE_BYTES = 16
REACH_LIMIT_S = 15.0  # for all of it; a node that is well answers in some 20 ms
# after a failure; an operator who has corrected something waits that long
RETRY = Backoff(1.0, 30.0, random.random)

Reach = Callable[[Member, str], Awaitable[str | None]]


class Dialler:
    """Looks for standbys on behalf of the node `me`."""

    def __init__(self, me: Member, credentials: Credentials) -> None:
        self._me = me
        self._credentials = credentials

    async def reach(self, standby: Member, ssh: str) -> str | None:
        """Why this node does not find `standby` at `ssh`, "host:port", in one line; None if it does."""
        try:
            async with asyncio.timeout(REACH_LIMIT_S):
                found = await self._ask(Endpoint.parse(ssh))
        except TimeoutError:
            reason = f"{ssh} gives {NO_ANSWER}"
        except StargateError as error:
            reason = error.message
        except (ConnectionError, EOFError, ValueError) as error:  # MessageError is a ValueError
            reason = f"{ssh}: {error or 'it hangs up'}"
        else:
            return misdirected(found, standby, ssh)
        return not_reached(self._me.name, standby.name, reason)

    async def _ask(self, where: Endpoint) -> Whoami:
        nonce = secrets.token_hex(NONCE_BYTES)
        peer = await Peer.connect(where, self._credentials)
        try:
            channel = await peer.open(f"{COMMAND} {nonce}")
            try:
                found = expect(await LineReader(channel).line(), Whoami)
            except EOFError:
                raise UnavailableError(channel.stderr or "it does not say who it is") from None
        finally:
            await finish(peer.close())
        if found.nonce != nonce:
            raise UnavailableError("it answers another question")
        return found


async def answer_whoami(words: Sequence[str], me: Member, channel: Channel) -> None:
    """Answer `stargate-whoami NONCE`: this node is `me`.

    Raises:
        UsageError: it is not that.
    """
    match tuple(words):
        case (command, nonce) if command == COMMAND:
            await channel.write(encode(Whoami(me, nonce)))
        case _:
            raise UsageError(f"{COMMAND} takes one word")


async def no_peers(standby: Member, ssh: str) -> str | None:
    """For a single node, which has no key to dial anybody with."""
    return not_reached("a single node", standby.name, f"{ssh} is of no cluster that it knows")
