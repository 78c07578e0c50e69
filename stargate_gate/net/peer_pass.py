"""What a node shows before it logs in to another node, so that strangers cannot keep it out. Pure.

Strangers can take all places of a listener in which a client may log in. If a standby that starts again got
no place, there would be no failover any more. The listener cannot see that a connection is a standby's: its
address may be the strangers' own, and its key is known only at the end of a login, which needs a place. So a
node says it in the first line of SSH, where RFC 4253, section 4.2, has room for a comment:

    SSH-2.0-Stargate peer-<seconds since 1970>-<nonce>-<HMAC-SHA-256 of both>

The key of the HMAC is derived from the cluster's private key, which only nodes have. A pass is valid once,
and for WINDOW_S before and after its time. It gives one of a few places in which to log in and nothing else:
who has copied a pass from the wire must still prove the cluster's key. If the clocks of the nodes differ by
more, the pass is not valid, and the standby waits for a place like other clients.
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
    signed = f"peer-{int(now_s)}-{nonce.hex()}"
    return f"{signed}-{_mac(secret, signed.encode())}"


@dataclass
class Passes:
    """Checks passes on the listener's side. Remembers those that were used until they are too old."""

    secret: bytes
    _used: dict[bytes, int] = field(default_factory=dict)  # nonce → until when it could be used again

    def take(self, version_line: bytes, now_s: float) -> bool:
        """Whether the first line of a client holds a pass that is valid now. It is used up by that."""
        found = _PASS.search(version_line)
        if found is None:
            return False
        signed = version_line[found.start() : found.end() - MAC_HEX - 1]
        if not hmac.compare_digest(_mac(self.secret, signed).encode(), found["mac"]):
            return False
        made_s = int(found["time"])
        if abs(now_s - made_s) > WINDOW_S or found["nonce"] in self._used:
            return False
        self._used = {nonce: until_s for nonce, until_s in self._used.items() if until_s > now_s}
        self._used[found["nonce"]] = made_s + WINDOW_S
        return True


def _mac(secret: bytes, signed: bytes) -> str:
    return hmac.new(secret, signed, hashlib.sha256).hexdigest()[:MAC_HEX]
