"""Which objects a push may bring: git's own check, without its complaints about harmless old history. Pure.

git-fsck(1) lists the messages, and fsck-msgs in git's source says how severe each is. In a push all but
its infos count as errors (receive.fsckObjects, git-config(1)). Without that check, a tree that holds
`.git` or `..` as a name, or a commit that names a tree as a file, is stored, and every clone fails later.

A message is ignored here if all of this holds: programs of earlier years wrote such objects, they are in
histories that people cannot change any more, and they mislead nobody about what a file contains or where
it is written. That leaves who made a commit and when, and how the mode of a file was printed. Everything
that git 2.39 does not know is left out: git warns of an unknown name at every push.
"""

# Message → why it is harmless.
HARMLESS = {
    "badDate": "git cannot read when a commit was made, and shows another time",
    "badDateOverflow": "a time beyond what git can count; it shows another one",
    "badEmail": "an address that is not between angle brackets",
    "badName": "a name with an angle bracket in it",
    "badTimezone": "a zone of more than four digits, like +051800",
    "missingEmail": "a name without an address, from a conversion",
    "missingNameBeforeEmail": "an address without a name",
    "missingSpaceBeforeDate": "a line of a header lacks a blank, or its date",
    "missingSpaceBeforeEmail": "a line of a header lacks a blank",
    "zeroPaddedDate": "a time that begins with a zero",
    "zeroPaddedFilemode": "the mode of a folder as 040000, where git writes 40000",
}

# For what users push: everything is checked but the above. A repository that has to take more names it in
# its own config (receive.fsck.MESSAGE=ignore), which adoption leaves.
RECEIVE_FSCK = (
    "receive.fsckObjects=true",
    *(f"receive.fsck.{message}=ignore" for message in sorted(HARMLESS)),
)
