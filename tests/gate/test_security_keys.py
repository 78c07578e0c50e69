"""Security keys (sk-): a token in software, so that touch and user verification can be told apart."""

import base64
import hashlib
import struct
from pathlib import Path

import asyncssh
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.gate.conftest import Node, connect

ALGORITHM = b"sk-ssh-ed25519@openssh.com"
APPLICATION = b"ssh:"
TOUCHED, VERIFIED = 0x01, 0x04


def text(value: bytes) -> bytes:
    """A string as RFC 4251 encodes it."""
    return struct.pack(">I", len(value)) + value


class Token(asyncssh.SSHKeyPair):
    """Signs as OpenSSH's PROTOCOL.u2f describes, with the flags it is told."""

    def __init__(self, flags: int) -> None:
        self._secret = Ed25519PrivateKey.generate()
        public = self._secret.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        blob = text(ALGORITHM) + text(public) + text(APPLICATION)
        super().__init__(ALGORITHM, ALGORITHM, (ALGORITHM,), (ALGORITHM,), blob, b"token")
        self._flags = flags

    def sign(self, data: bytes) -> bytes:
        """A signature over the hash of `data`, the flags and a counter."""
        end = struct.pack(">BI", self._flags, 7)
        message = hashlib.sha256(APPLICATION).digest() + end + hashlib.sha256(data).digest()
        return text(ALGORITHM) + text(self._secret.sign(message)) + end


@pytest.mark.parametrize(
    ("options", "flags", "gets_in"),
    [
        ("", TOUCHED, True),
        ("", TOUCHED | VERIFIED, True),
        ("", 0, False),
        ("no-touch-required", 0, True),
        ("verify-required", TOUCHED, False),
        ("verify-required", TOUCHED | VERIFIED, True),
    ],
)
async def test_a_security_key_must_be_touched_and_verify_its_user_as_its_line_says(
    node: Node,
    options: str,
    flags: int,
    gets_in: bool,  # noqa: FBT001
) -> None:
    """Touch by default; no-touch-required and verify-required are honoured."""
    token = Token(flags)
    public = asyncssh.import_public_key(_public_line(token)).export_public_key().decode()
    (node.root / "authorized_keys").write_text(f"{options} {public}".lstrip())
    node.keys = {**node.keys, "token": token}  # type: ignore[dict-item]
    if gets_in:
        async with connect(node, "token") as connection:
            assert (await connection.run("health")).exit_status == 0
    else:
        with pytest.raises(asyncssh.PermissionDenied):
            await connect(node, "token")


def _public_line(token: Token) -> bytes:
    return ALGORITHM + b" " + base64.b64encode(token.public_data) + b"\n"


_ = Path
