"""What a node shows before it logs in to another one, so that strangers cannot keep it out. Pure.

A standby that starts again while strangers take every place of the listener must get in, or they have
switched failover off, also when it comes from the strangers' own address. Who it is shows only at the end of
a login, and for that it needs a place. So it says so in the first line of SSH, where RFC 4253, section 4.2,
has room for a comment:

    SSH-2.0-Stargate peer-<seconds since 1970>-<nonce>-<HMAC-SHA-256 of both>

The key of the HMAC is made from the cluster's private key, which only nodes have. A pass is good once, and
for WINDOW_S before and after its time. It gives nothing but one of a few places in which to log in: whoever
copied one from the wire within that time must still prove the cluster's key. If the nodes' clocks differ by
more, a pass does not count, and the standby queues with the others.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass, field

WINDOW_S = 300
NONCE_BYTES = 12
MAC_HEX = 40  # 160 bits
_PASS = re.compile(rb"peer-(?P<time>[0-9]{1,12})-(?P<nonce>[0-9a-f]{24})-(?P<mac>[0-9a-f]{40})")


def secret_of(private_key: bytes) -> bytes:
    """The HMAC's key, for a private key as PKCS #8 in DER, without a passphrase."""
    return hashlib.sha256(b"stargate peer pass\0" + private_key).digest()


def make_pass(secret: bytes, now_s: float, nonce: bytes) -> str:
    """A pass to show at `now_s` (since 1970); `nonce` is NONCE_BYTES of randomness."""
    said = f"peer-{int(now_s)}-{nonce.hex()}"
    return f"{said}-{_mac(secret, said.encode())}"


@dataclass
class Passes:
    """Tells which passes count. Remembers those that it took until they are too old."""

    secret: bytes
    _taken: dict[bytes, int] = field(default_factory=dict)

    def take(self, version_line: bytes, now_s: float) -> bool:
        """Whether the first line of a client holds a pass that is good now; it is good no more after it."""
        found = _PASS.search(version_line)
        if found is None:
            return False
        said = version_line[found.start() : found.end() - MAC_HEX - 1]
        if not hmac.compare_digest(_mac(self.secret, said).encode(), found["mac"]):
            return False
        made_s = int(found["time"])
        if abs(now_s - made_s) > WINDOW_S or found["nonce"] in self._taken:
            return False
        self._taken = {nonce: until_s for nonce, until_s in self._taken.items() if until_s > now_s}
        self._taken[found["nonce"]] = made_s + WINDOW_S
        return True


def _mac(secret: bytes, said: bytes) -> str:
    return hmac.new(secret, said, hashlib.sha256).hexdigest()[:MAC_HEX]
