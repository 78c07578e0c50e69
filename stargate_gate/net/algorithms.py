"""Which SSH algorithms Stargate speaks, for its listener and for its connections to other nodes. Pure: names.

Everything is named. asyncssh's own lists may not be taken, also not with a few names taken out: they hold
key exchanges that cost tens of milliseconds on the event loop for a few bytes of a stranger (an RSA key
made for each connection, Diffie-Hellman in groups that the client chooses), and 50 of those at once held
the loop for longer than the watchdog allows. tests/gate/test_algorithms.py measures what each name costs.
"""

from collections.abc import Iterable, Sequence

# curve25519-sha256 is first: Dropbear sends its first packet on the guess that it is. For all others the
# client's order decides, and new ones begin with mlkem768x25519-sha256, which protects what is recorded
# today from a quantum computer of tomorrow.
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

# The client's order decides, and OpenSSH's begins with chacha20-poly1305, which costs 1.6 times the CPU
# of AES-GCM here: so it is not offered. Every client that has it has one of these too.
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
PEER_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")

# AES-GCM needs none. Dropbear and libssh2 before 1.11 have neither AES-GCM nor an -etm one: for them the
# two plain ones stay.
MACS = (
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
)

HOST_KEY_FIRST = "ssh-ed25519"  # what Dropbear's guess needs to be first as well


def available(names: Sequence[str], known: Iterable[bytes]) -> tuple[str, ...]:
    """Those of `names` that the installed libraries can do, in this order: mlkem needs a new OpenSSL."""
    can = set(known)
    return tuple(name for name in names if name.encode() in can)
