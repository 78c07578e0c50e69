"""The SSH algorithms of the listener and of connections to other nodes. Pure: names.

Each algorithm is named. asyncssh's own lists are not used, and neither are they with some names removed: they
contain key exchanges that cost tens of milliseconds on the event loop for a few bytes of a stranger (an RSA
key made for each connection; Diffie-Hellman in groups that the client chooses). 50 of those at once blocked
the loop for longer than the watchdog allows. tests/gate/test_algorithms.py measures the cost of each name.
"""

from collections.abc import Iterable, Sequence

# curve25519-sha256 is first because Dropbear sends its first packet on the guess that it is. For all other
# clients the client's order decides. New ones begin with mlkem768x25519-sha256, which protects what somebody
# records today from a quantum computer of the future.
KEY_EXCHANGES = (
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "mlkem768x25519-sha256",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
)
# Between nodes both sides are Stargate.
PEER_KEY_EXCHANGES = ("mlkem768x25519-sha256", "curve25519-sha256")

# The client's order decides, and OpenSSH's begins with chacha20-poly1305, which costs 1.6 times the CPU time
# of AES-GCM here. So it is not offered. Every client that has it also has one of these.
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
PEER_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")

# AES-GCM needs no MAC. Dropbear, and libssh2 before 1.11, have neither AES-GCM nor an -etm MAC: the last two
# are for them.
MACS = (
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
)

HOST_KEY_FIRST = "ssh-ed25519"  # the other half of Dropbear's guess


def available(names: Sequence[str], known: Iterable[bytes]) -> tuple[str, ...]:
    """Those of `names` that the installed libraries have, in this order: mlkem needs a new OpenSSL."""
    present = set(known)
    return tuple(name for name in names if name.encode() in present)
