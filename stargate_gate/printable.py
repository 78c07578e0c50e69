"""Makes text from outside safe to show: on a terminal, in a log line, in a message to a client. Pure.

Ref names, comments of keys, login names, commands, messages of git and of peers are chosen by others. If they
were shown as they are, they could

- move the cursor and rewrite what stands on the screen (control characters, terminal escapes),
- change the order in which a line is read (bidirectional overrides),
- add lines to a log that nobody wrote (line breaks, also U+2028),
- stop the output with an error (lone surrogates, which UTF-8 cannot encode).

The rule is `str.isprintable`: everything but letters, marks, numbers, punctuation, symbols and the space is
replaced. This is the only module that does this; tests/test_printable.py looks for others.
"""


def printable(text: str | bytes, limit: int | None = None, *, instead: str = "?") -> str:
    """`text` on one line, each character that must not be shown replaced by `instead`.

    text   as bytes it is read as UTF-8; what is not UTF-8 becomes U+FFFD
    limit  in characters; a longer text is cut and ends with "…"
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    if limit is not None and len(text) > limit:
        return printable(text[: limit - 1], instead=instead) + "…"
    return "".join(character if character.isprintable() else instead for character in text)


def escaped(text: str) -> str:
    r"""`text` on one line, each character that must not be shown as an escape of Python, such as `\x1b`."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
