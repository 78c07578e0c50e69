"""How long the name of a ref may be, wherever one can be made. Pure.

git takes names up to what the file system takes. But a standby keeps the same ref in another folder,
beside which git makes NAME.lock: a name that one node can store, another one may not. So the limits are
far below those of the file system, and the same on every node.
"""

from stargate_gate.printable import printable

MAX_COMPONENT_BYTES = 250  # a file's name has 255 at most, and git writes NAME.lock first: 251 fail (tried)
MAX_REF_BYTES = 1_000  # a path has 4,096 at most: this leaves 3,000 for data_dir and the repository's name
_SHOWN_BYTES = 60


def ref_problem(ref: bytes) -> str | None:
    """Why no node may have a ref of that name, for people; None if it is short enough.

    Says nothing of what else git asks of a name (git-check-ref-format(1)).
    """
    if len(ref) > MAX_REF_BYTES:
        return f"ref {shown(ref)} has {len(ref)} bytes: a name may have {MAX_REF_BYTES}"
    longest = max(map(len, ref.split(b"/")))
    if longest > MAX_COMPONENT_BYTES:
        return f"ref {shown(ref)} has {longest} bytes between two slashes: {MAX_COMPONENT_BYTES} are allowed"
    return None


def shown(ref: bytes) -> str:
    """The name in a message: its beginning if it is long, without control characters."""
    short = ref if len(ref) <= _SHOWN_BYTES else ref[:_SHOWN_BYTES] + b"..."
    return printable(short)
