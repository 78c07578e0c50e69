"""Lines of authorized_keys for stock OpenSSH, as an AuthorizedKeysCommand prints them. Pure.

They have the same keys in the same order as the node's own listener uses. A line that authorized_keys.py
refuses is left out. sshd checks the client's address and how a security key was used. The expiry time is
checked here, since sshd runs the command at each login.
"""

import base64
import shlex
from collections.abc import Sequence
from datetime import datetime

from stargate_gate.access.authorized_keys import KeyEntry, parse_authorized_keys

LAST_GROUP = 4  # characters of base64; the last ones may be written in more than one way


def sshd_lines(content: bytes, blob: bytes, now: datetime, shell: Sequence[str]) -> tuple[str, ...]:
    """The lines for the offered key `blob` at `now` (aware), from the authorized_keys file `content`.

    Each line forces the command `shell` (the command line of stargate-shell, to which user and access are
    added), and has `restrict` against everything else that sshd could do. sshd takes the first line that
    fits. () if there is none.
    """
    keys = parse_authorized_keys(_about(content, blob))
    lines = (_line(entry, shell) for entry in keys.entries if entry.blob == blob and _lasts(entry, now))
    return tuple(line for line in lines if line is not None)


def _about(content: bytes, blob: bytes) -> bytes:
    """The lines that may have that key. To parse thousands of others would take most of the time."""
    spelled = base64.b64encode(blob)[:-LAST_GROUP]
    return b"\n".join(line for line in content.split(b"\n") if spelled in line)


def _lasts(entry: KeyEntry, now: datetime) -> bool:
    valid_before = entry.options.valid_before
    return valid_before is None or now <= valid_before


def _line(entry: KeyEntry, shell: Sequence[str]) -> str | None:
    options = entry.options
    identity = entry.identity(source="")
    command = shlex.join([*shell, f"--user={identity.user}", f"--access={identity.access}"])
    words = [f"command={_quoted(command)}", "restrict"]
    if options.sources is not None:
        sources = options.sources.for_sshd()
        if sources is None:
            return None
        words.append(f"from={_quoted(sources)}")
    if not options.touch_required:
        words.append("no-touch-required")
    if options.verify_required:
        words.append("verify-required")
    return f"{','.join(words)} {entry.key_type} {base64.b64encode(entry.blob).decode('ascii')}"


def _quoted(text: str) -> str:
    """`text` in double quotes. sshd(8) knows only one escape: that of a quote."""
    return '"' + text.replace('"', '\\"') + '"'
