"""Why a peer could not be connected to, in words that say what to look at. Pure."""

import errno
import os
import re
import socket

_ERRNO = re.compile(r"\[Errno (-?[0-9]+)\]")

_REFUSED = (
    "nothing listens there (connection refused): is stargate running there, is that the port of its "
    "ssh.listen, does a firewall refuse it?"
)
_NO_ROUTE = "there is no way to that machine ({}): check its address, the routes and the firewall"
_FORBIDDEN = "this machine's own system forbids it ({}): check the routes and the firewall of this machine"
_WORDS = {
    errno.ECONNREFUSED: _REFUSED,
    errno.EHOSTUNREACH: _NO_ROUTE,
    errno.ENETUNREACH: _NO_ROUTE,
    errno.EHOSTDOWN: _NO_ROUTE,
    errno.EADDRNOTAVAIL: _NO_ROUTE,
    errno.EINVAL: _FORBIDDEN,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.ECONNRESET: "the connection was cut before the login: is that the SSH port of a stargate node?",
    errno.EMFILE: "this node has too many files open ({}): raise its limit of open files",
    errno.ENFILE: "this machine has too many files open ({}): end some programs",
}
NO_ANSWER = "no answer: is the machine up, and does a firewall drop that port?"


def connect_problem(error: BaseException) -> str:
    """What kept a TCP connection from being made, and what to look at; one line, without numbers of errors.

    asyncio joins the failures of several addresses of one name into one text; the first kind counts.
    """
    if isinstance(error, socket.gaierror):
        return "this name is not known here: check the name, and the DNS or /etc/hosts of this machine"
    number = getattr(error, "errno", None)
    if number is None and (found := _ERRNO.search(str(error))) is not None:
        number = int(found[1])
    if isinstance(error, TimeoutError) or number == errno.ETIMEDOUT:
        return NO_ANSWER
    if number in _WORDS:
        return _WORDS[number].format(os.strerror(number).lower())
    if number is not None and number > 0:
        return os.strerror(number).lower()
    return " ".join(_ERRNO.sub("", str(error)).split()) or type(error).__name__
