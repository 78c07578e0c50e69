"""A name that points at the leader, by dynamic update (RFC 2136) signed with TSIG (RFC 8945).

The name is not removed when this node stops leading. A resolver that asks in between would remember that the
name does not exist, for longer than the time to live of the next answer. Until the next leader replaces it,
the name points to a node that serves reads and says who leads.
"""

import asyncio
import errno
from collections.abc import Sequence
from pathlib import Path

import dns.asyncquery
import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import dns.rrset
import dns.tsig
import dns.update

from stargate_gate.address.fence import Fence, fence_of, why_not
from stargate_gate.address.port import Turn
from stargate_gate.aio.foreign_files import read_regular
from stargate_gate.aio.worker import Worker
from stargate_gate.config.endpoint import Endpoint
from stargate_gate.config.files import MAX_KEY_BYTES
from stargate_gate.config.tsig import read_tsig_key
from stargate_gate.config.values import IpAddress
from stargate_gate.errors import AddressError

KEEP_S = 30.0  # how soon a change of the name by somebody else is found and undone
EXCHANGE_LIMIT_S = 3.0  # one question and its answer
LIMIT_S = 10.0
READ_LIMIT_S = 5.0  # for the key file, which may be on a network volume that does not answer
TRIES = 3  # another claim may come between reading and updating
FENCE_LABEL = "_stargate"
FENCE_TTL_S = 5
LOST_RACE = (dns.rcode.NXRRSET, dns.rcode.YXRRSET, dns.rcode.NXDOMAIN, dns.rcode.YXDOMAIN)
TYPES = {4: dns.rdatatype.A, 6: dns.rdatatype.AAAA}


class DnsName:
    """The `Address` of kind dns. `addresses` are this node's own."""

    keep_s = KEEP_S
    limit_s = LIMIT_S
    hosts: frozenset[str] | None = frozenset()  # the node's own addresses stay where they are

    def __init__(
        self,
        name: str,
        *,
        zone: str,
        server: Endpoint,
        key_file: Path,
        addresses: Sequence[IpAddress],
        ttl_s: int,
    ) -> None:
        self.name = f"dns {name}"
        self._name = dns.name.from_text(name)
        self._fence_name = dns.name.from_text(FENCE_LABEL, origin=self._name)
        self._zone = dns.name.from_text(zone)
        self._server = server
        self._key_file = key_file
        self._addresses = tuple(addresses)
        self._ttl_s = ttl_s

    async def claim(self, turn: Turn) -> None:
        """Point the name here, unless a later term has claimed it, and read it back."""
        mine = fence_of(turn)
        for _ in range(TRIES):
            there = await self._fences()
            if (problem := why_not(mine, there)) is not None:
                raise AddressError(f"{self._fence_name} {problem}")
            answer = await self._exchange(self._update(mine, there))
            if answer.rcode() in LOST_RACE:
                continue
            if answer.rcode() != dns.rcode.NOERROR:
                raise AddressError(self._refused(answer.rcode().name))
            await self._check(mine)
            return
        raise AddressError(f"{self._fence_name} changes all the time: does another node claim it?")

    async def keep(self, turn: Turn) -> None:
        """Read it back, and claim it again if it has changed."""
        try:
            await self._check(fence_of(turn))
        except AddressError:
            await self.claim(turn)

    async def release(self, turn: Turn) -> None:
        """Do nothing: see the module's docstring."""

    def _update(self, mine: Fence, there: Sequence[str]) -> dns.message.Message:
        """Replace both records, on condition that the fence has not changed since it was read."""
        update = dns.update.UpdateMessage(self._zone)
        if there:
            update.present(self._fence_name, *(_text(one) for one in there))
        else:
            update.absent(self._fence_name, dns.rdatatype.TXT)
        update.replace(self._fence_name, FENCE_TTL_S, _text(str(mine)))
        for version, kind in TYPES.items():
            update.delete(self._name, kind)
            for address in self._addresses:
                if address.version == version:
                    update.add(self._name, self._ttl_s, kind, str(address))
        return update

    async def _check(self, mine: Fence) -> None:
        """Check that the server answers what `_update` wrote. Raises AddressError if it does not."""
        if (found := await self._fences()) != [str(mine)]:
            raise AddressError(f"{self._fence_name} reads {found}, and not {str(mine)!r}")
        for version, kind in TYPES.items():
            wanted = {str(one) for one in self._addresses if one.version == version}
            answers = await self._ask(self._name, kind)
            if {answer.to_text() for answer in answers} != wanted:
                shown = ", ".join(sorted(answer.to_text() for answer in answers)) or "nothing"
                raise AddressError(f"{self._name} {kind.name} reads {shown}, and not what was written")

    async def _fences(self) -> list[str]:
        answers = await self._ask(self._fence_name, dns.rdatatype.TXT)
        return [
            b"".join(one.strings).decode("utf-8", "replace")
            for one in answers
            if isinstance(one, dns.rdtypes.ANY.TXT.TXT)
        ]

    async def _ask(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> list[dns.rdata.Rdata]:
        """The records of that kind from the zone's primary server itself, not from a cache."""
        question = dns.message.make_query(name, kind)
        question.flags = 0  # no recursion: an answer from a cache proves nothing
        answer = await self._exchange(question)
        if answer.rcode() == dns.rcode.NXDOMAIN:
            return []
        if answer.rcode() != dns.rcode.NOERROR:
            raise AddressError(self._refused(answer.rcode().name))
        found = answer.get_rrset(answer.answer, name, dns.rdataclass.IN, kind)
        return list(found or ())

    async def _exchange(self, message: dns.message.Message) -> dns.message.Message:
        """Send one signed message over TCP; returns its signed answer. Raises AddressError."""
        try:
            content = await _read_key_file(self._key_file)
            key = read_tsig_key(content.decode("utf-8", "replace"))
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise AddressError(f"the TSIG key {self._key_file}: {why}") from error
        message.use_tsig(dns.tsig.Key(key.name, key.secret, key.algorithm))
        host, port = self._server.host, self._server.port
        try:
            return await dns.asyncquery.tcp(message, host, timeout=EXCHANGE_LIMIT_S, port=port)
        except (dns.tsig.PeerBadTime, dns.tsig.BadTime) as error:
            raise AddressError(f"the clock of the DNS server {self._server} is not this node's") from error
        except dns.tsig.PeerError as error:
            raise AddressError(self._refused(type(error).__name__)) from error
        except dns.exception.Timeout as error:
            raise AddressError(f"the DNS server {self._server} gives no answer") from error
        except (OSError, EOFError) as error:
            why = error.strerror if isinstance(error, OSError) else "it closes the connection"
            raise AddressError(f"no answer from the DNS server {self._server}: {why or error}") from error
        except dns.exception.DNSException as error:
            raise AddressError(f"a bad answer from the DNS server {self._server}: {error}") from error

    def _refused(self, how: str) -> str:
        return (
            f"the DNS server {self._server} refuses ({how}): it must know the key, and let it change "
            f"A, AAAA and TXT of {self._name} and {self._fence_name} in the zone {self._zone}"
        )


async def _read_key_file(path: Path) -> bytes:
    """The file's content, read in a thread that is left behind when it takes longer than READ_LIMIT_S.

    Raises:
        OSError: it cannot be read in time; `strerror` says why.
    """
    worker = Worker("read-tsig-key")
    try:
        async with asyncio.timeout(READ_LIMIT_S):
            content, _ = await worker.call(read_regular, path, MAX_KEY_BYTES)
    except TimeoutError:
        raise OSError(errno.ETIMEDOUT, f"it could not be read within {READ_LIMIT_S:g} s", str(path)) from None
    finally:
        worker.close()
    return content


def _text(text: str) -> dns.rdata.Rdata:
    return dns.rdtypes.ANY.TXT.TXT(dns.rdataclass.IN, dns.rdatatype.TXT, [text.encode()])
