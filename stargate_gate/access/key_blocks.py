"""What people put into an authorized_keys file by mistake: private keys, other formats and encodings. Pure.

A private key in that file must not get from there into logs and status pages. So texts about such a file
quote a line only if a whole public key was found in it. About anything else they say what it is and what to
do, and never show it.
"""

import re
from dataclasses import dataclass

UTF8_BOM = b"\xef\xbb\xbf"  # Windows editors put it in front of a text
UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
LOOKED_AT_BYTES = 4096  # enough to recognise UTF-16 without a mark: half of its bytes are zero
MAX_LINES = 200_000  # each is parsed by Python, at some 15 microseconds; keys are about a line each


@dataclass(frozen=True)
class Block:
    """Lines that belong together: how the first and the last of them begin, and the message about them."""

    begins: re.Pattern[bytes]
    ends: re.Pattern[bytes]
    text: str


_PRIVATE = (
    "a private key begins here, which must never be on a server: take it out, treat it as known to others, "
    "and put its public half here, one line (the file that ends in .pub, or what ssh-keygen -y prints)"
)
BLOCKS = (
    Block(re.compile(rb"-+ ?BEGIN [A-Z0-9 ]*PRIVATE KEY"), re.compile(rb"-+ ?END "), _PRIVATE),
    Block(
        re.compile(rb"PuTTY-User-Key-File-"),
        re.compile(rb"Private-(MAC|Hash):"),
        "a PuTTY key file (.ppk) begins here, and it holds a private key: take it out, treat it as known to "
        "others, and put the line here that PuTTYgen shows for OpenSSH (or what puttygen -L prints)",
    ),
    Block(
        re.compile(rb"---- BEGIN SSH2 PUBLIC KEY"),
        re.compile(rb"---- END "),
        "a public key in the format of RFC 4716 begins here: write it as one line, as ssh-keygen -i -f FILE "
        "prints it",
    ),
    Block(
        re.compile(rb"-----BEGIN [A-Z0-9 ]*PUBLIC KEY"),
        re.compile(rb"-----END "),
        "a public key in PEM format begins here: write it as one line, which ssh-keygen -i -m PKCS8 -f FILE "
        "prints (-m PEM for an old RSA key)",
    ),
    Block(
        re.compile(rb"-----BEGIN "),
        re.compile(rb"-----END "),
        "a PEM block begins here that is no public key of SSH: take it out",
    ),
)


def block_at(line: bytes) -> Block | None:
    """The block that begins with `line`, which is stripped of blanks."""
    return next((block for block in BLOCKS if block.begins.match(line)), None)


def problem_of_whole(content: bytes) -> str | None:
    """Why `content` cannot be read as lines of keys; None if it can."""
    if content.startswith(UTF16_BOMS) or b"\0" in content[:LOOKED_AT_BYTES]:
        return "it is not UTF-8 text (UTF-16?): save it as UTF-8"
    if content.count(b"\n") > MAX_LINES:
        return f"it has more than {MAX_LINES} lines: keep the keys that are in use"
    return None
