"""Names of transactions: ULIDs, 48 bits of milliseconds and 80 random ones, in Crockford's base 32. Pure."""

_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LENGTH = 26
RANDOM_BYTES = 10


def ulid(now_ms: int, noise: bytes) -> str:
    """The ULID of that moment (milliseconds since 1970) and those RANDOM_BYTES random bytes."""
    number = (now_ms << 8 * RANDOM_BYTES) | int.from_bytes(noise, "big")
    return "".join(_DIGITS[(number >> 5 * place) & 31] for place in reversed(range(_LENGTH)))


def moment_ms(name: str) -> int:
    """When a ULID was made, in milliseconds since 1970; 0 if `name` is no ULID."""
    if len(name) != _LENGTH or not set(name) <= set(_DIGITS):
        return 0
    number = 0
    for digit in name:
        number = number << 5 | _DIGITS.index(digit)
    return number >> 8 * RANDOM_BYTES
