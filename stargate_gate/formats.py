"""What this version of Stargate writes to disks and sends to other programs, with a number each. Pure.

docs/formats.md describes every entry; a test compares that page with this table.

A number is raised when a program that knows the old number could misunderstand the new content. A change
that older programs may ignore (one more key in a JSON object) does not raise it. Every reader refuses
content with a larger number than its own, before it changes anything, and says which file or which peer
it was and that this node has to be updated. Content without a number has the number that version 0.1 wrote:
1, and 3 for the feed.

Where the number stands:

    a JSON object             its key "format"
    a file of several lines   a first line "stargate <name>, format <number>"
    a file of one line        nowhere: LAYOUT has the number for all of them
    a message of the feed     its key "v"
    the control socket        the key "protocol" of requests and answers
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from stargate_gate.errors import NewerFormatError

KEY = "format"
FIRST = 1  # of content without a number

_HEADER = re.compile(rb"stargate (?P<name>[a-z ]+), format (?P<number>[0-9]{1,9})\n")


class Format(NamedTuple):
    """One kind of file or message. A NamedTuple: stargate-shell imports this for every session.

    name    as in docs/formats.md, and in the first line of a file of several lines
    where   path below the data_dir, or what it is part of
    number  what is written, and the largest that is read
    """

    name: str
    where: str
    number: int = FIRST

    @property
    def header(self) -> bytes:
        """The first line of a file of several lines."""
        return f"stargate {self.name}, format {self.number}\n".encode("ascii")

    def stamped(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON object `value` with its number."""
        return {KEY: self.number, **value}

    def unstamped(self, value: Mapping[str, Any], place: object) -> dict[str, Any]:
        """The reverse of `stamped`, for what was read from `place`, a path.

        Raises:
            NewerFormatError: it has a larger number.
            ValueError: its number is none.
        """
        found = value.get(KEY, FIRST)
        if type(found) is not int:
            raise ValueError(f"{found!r:.40} is no number of a format")
        self.require_readable(found, place)
        return {key: one for key, one in value.items() if key != KEY}

    def body(self, content: bytes, place: object) -> bytes:
        """What follows the first line in a file of several lines; all of it where version 0.1 wrote it.

        Raises:
            NewerFormatError: it has a larger number.
        """
        found = _HEADER.match(content)
        if found is None or found["name"] != self.name.encode("ascii"):
            return content
        self.require_readable(int(found["number"]), place)
        return content[found.end() :]

    def require_readable(self, found: int, place: object) -> None:
        """Check the number `found` of what was read from `place`.

        Raises:
            NewerFormatError: it is larger than the one that this version knows.
        """
        if found > self.number:
            raise NewerFormatError(place, found, self.number)


# Files below data_dir. CONFIG_SEAL is a line at the end of a repository's config.
LAYOUT = Format("data_dir", "layout.json")
ELECTION = Format("election state", "state/election.json")
JOURNAL = Format("journal", "state/unreplicated.log")
INTENT = Format("intent", "state/intents/<repository id>")
RESCUED = Format("rescued values", "state/rescued/<repository id>.json")
IN_STEP = Format("in step", "state/in_step.json")
UNSOUND = Format("unsound copies", "state/unsound.json")
SCRUB = Format("scrub", "state/scrub.log")
RUNNING = Format("running", "state/running.json")
WRITER = Format("writer", "run/writers/<random>")
TRASH = Format("trash entry", "trash/<time>-<repository id>/about.json")
READY = Format("new repository", "repositories/.new-<repository id>/ready.json")
CONFIG_SEAL = Format("config seal", "repositories/<name>.git/config", 2)

# The file on the shared volume (or state/leader.lock of a single node).
CLUSTER_RECORD = Format("cluster record", "election.flock.path")

# Between programs.
FEED = Format("feed", "stargate-feed, stargate-refs, stargate-whoami", 3)
CONTROL = Format("control socket", "run/control.sock")

FORMATS = (
    LAYOUT,
    ELECTION,
    JOURNAL,
    INTENT,
    RESCUED,
    IN_STEP,
    UNSOUND,
    SCRUB,
    RUNNING,
    WRITER,
    TRASH,
    READY,
    CONFIG_SEAL,
    CLUSTER_RECORD,
    FEED,
    CONTROL,
)
