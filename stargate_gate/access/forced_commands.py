"""What stock OpenSSH is told about a key: lines as AuthorizedKeysCommand gives them. Pure.

The same entries, in the same order, as the node's own listener goes through them. A line that
authorized_keys.py refuses is no entry, so it is not here either. sshd checks what depends on the client's
address and on how a security key was used; time is looked at here, for sshd asks anew at each login.
"""

import base64
import shlex
from collections.abc import Sequence
from datetime import datetime

from stargate_gate.access.authorized_keys import KeyEntry, parse_authorized_keys

LAST_GROUP = 4  # characters of base64 in which two spellings of one key may differ


def sshd_lines(content: bytes, blob: bytes, now: datetime, shell: Sequence[str]) -> tuple[str, ...]:
    """What the authorized_keys file `content` has for the offered key `blob` at `now` (aware).

    `shell` is the command line of stargate-shell up to where the user follows. Each line forces it,
    and `restrict`s everything that sshd could do besides; sshd takes the first that fits. () if there
    is none.
    """
    keys = parse_authorized_keys(_about(content, blob))
    lines = (_line(entry, shell) for entry in keys.entries if entry.blob == blob and _lasts(entry, now))
    return tuple(line for line in lines if line is not None)


def _about(content: bytes, blob: bytes) -> bytes:
    """The lines that can hold that key: to parse ten thousand others would take longer than all the rest."""
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
    """In double quotes, of which sshd(8) knows one escape: a quote."""
    return '"' + text.replace('"', '\\"') + '"'
