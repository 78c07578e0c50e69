"""A TSIG key as BIND's tools write it: `key "NAME" { algorithm hmac-sha256; secret "BASE64"; };`. Pure."""

import base64
import binascii
import re
from dataclasses import dataclass

ALGORITHMS = ("hmac-sha256", "hmac-sha384", "hmac-sha512", "hmac-sha224", "hmac-sha1")  # RFC 8945, section 6
MIN_SECRET_BYTES = 16  # RFC 8945 asks for the length of the hash; a shorter secret can be guessed

MAX_CHARACTERS = 4096  # ten times what tsig-keygen writes; the time of patterns can grow with its square

_COMMENTS = re.compile(r"/\*.*?\*/|(//|#)[^\n]*", re.DOTALL)
_KEY = re.compile(r'\s*key\s+"?(?P<name>[A-Za-z0-9._-]+)"?\s*\{(?P<body>[^}]*)\}\s*;\s*')
_CLAUSE = re.compile(r'\b(?P<word>algorithm|secret)\s+"?(?P<value>[A-Za-z0-9+/=.-]+)"?\s*;')


@dataclass(frozen=True)
class TsigKey:
    """The name, algorithm and secret that sign an update. repr() does not show the secret."""

    name: str
    algorithm: str
    secret: bytes

    def __repr__(self) -> str:
        return f"TsigKey(name={self.name!r}, algorithm={self.algorithm!r})"


def read_tsig_key(text: str) -> TsigKey:
    """The key in `text`.

    Raises:
        ValueError: there is no key, or more than one; what to do follows a semicolon.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError("is too long for one TSIG key; make one with: tsig-keygen stargate > FILE")
    found = _KEY.fullmatch(_COMMENTS.sub("", text))
    if found is None:
        raise ValueError("is no TSIG key; make one with: tsig-keygen stargate > FILE")
    clauses = {one["word"]: one["value"] for one in _CLAUSE.finditer(found["body"])}
    algorithm = clauses.get("algorithm", "").lower().removesuffix(".")
    if algorithm not in ALGORITHMS:
        raise ValueError(f"has the algorithm {algorithm[:40]!r}; use one of {', '.join(ALGORITHMS)}")
    try:
        secret = base64.b64decode(clauses.get("secret", ""), validate=True)
    except binascii.Error:
        raise ValueError(
            "has a secret that is not base64; make one with: tsig-keygen stargate > FILE"
        ) from None
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError("has a secret that can be guessed; make one with: tsig-keygen stargate > FILE")
    return TsigKey(found["name"], algorithm, secret)
