"""Sequence numbers of a term's changes, as leader, standby and journal use them. Pure."""

UNNUMBERED = 0  # this change has no sequence number yet
FIRST_POSITION = 1  # everything that was there before the first change of a term
