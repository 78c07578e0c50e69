"""Lines of authorized_keys with keys that nobody has."""

import base64
import struct


def text(value: bytes) -> bytes:
    """A string as RFC 4251 encodes it."""
    return struct.pack(">I", len(value)) + value


def ed25519(seed: int = 1) -> str:
    """An ed25519 line without options and comment."""
    blob = text(b"ssh-ed25519") + text(bytes([seed]) * 32)
    return "ssh-ed25519 " + base64.b64encode(blob).decode()


def numbered(number: int) -> str:
    """One of many different ed25519 lines."""
    return "ssh-ed25519 " + base64.b64encode(text(b"ssh-ed25519") + text(number.to_bytes(32))).decode()


def rsa(bits: int) -> str:
    """An RSA line of that many bits."""
    modulus = (1 << bits) - 1
    blob = text(b"ssh-rsa") + text(b"\x01\x00\x01") + text(b"\x00" + modulus.to_bytes(bits // 8, "big"))
    return "ssh-rsa " + base64.b64encode(blob).decode()
