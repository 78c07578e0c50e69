"""Which objects git refuses in a push: its own check, without its errors about harmless old history. Pure.

git-fsck(1) lists the messages, and fsck-msgs in git's source says how severe each is. In a push all messages
except infos count as errors (receive.fsckObjects, git-config(1)). Without the check, git would store a tree
with `.git` or `..` as a name, or a commit that names a file as its tree, and every later clone would fail.

A message is ignored here if all of this is true: earlier programs wrote such objects, people have them in
histories that they cannot change any more, and the objects are not misleading about what a file contains or
where it is written. Such messages are about who made a commit and when, and about how the mode of a file was
written. Messages that git 2.39 does not know are not in the list, because git warns about an unknown name at
every push.
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

# For pushes of users: everything is checked except the above. A repository that must accept more says so in
# its own config (receive.fsck.MESSAGE=ignore), which adoption keeps.
RECEIVE_FSCK = (
    "receive.fsckObjects=true",
    *(f"receive.fsck.{message}=ignore" for message in sorted(HARMLESS)),
)
