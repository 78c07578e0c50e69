"""The gate's own texts, in the form that git clients, scripts and people need."""

from stargate_gate.access.identity import Identity
from stargate_gate.errors import StargateError
from stargate_gate.gate.commands import Service
from stargate_gate.gate.ports import Channel
from stargate_gate.repos.pktline import error_line

ALLOWED = {
    "read": "clone and fetch",
    "write": "clone, fetch and push",
    "admin": "clone, fetch and push, and create and delete repositories",
    "peer": "follow this node",
}


async def refuse(
    channel: Channel, refusal: StargateError, service: Service | None, *, begun: bool, terminal: bool
) -> None:
    """Send the reason of a refusal, in one line, to where the client looks for it.

    Git's clients print an ERR pkt-line as "fatal: remote error: ..." without their usual advice on access
    rights. It has to be the first thing on stdout, so it is not sent when git has `begun` to write. For
    receive-pack the line also goes to stderr, where scripts look for it.
    """
    message = " ".join(refusal.message.splitlines())
    if service is not None and not begun:
        await channel.write(error_line(message))
    if service is None or service == "receive-pack" or begun:
        await channel.write_error(as_text(message, terminal=terminal))


async def say(channel: Channel, text: str, *, terminal: bool) -> None:
    """Send lines for people or scripts to stdout."""
    await channel.write(as_text(text, terminal=terminal))


def as_text(text: str, *, terminal: bool) -> bytes:
    """`text` with an end of line at its end. A client's terminal is in raw mode and needs CR LF."""
    lines = text.rstrip("\n") + "\n"
    return (lines.replace("\n", "\r\n") if terminal else lines).encode("utf-8", "replace")


def welcome(identity: Identity, node: str) -> str:
    """The answer to a plain `ssh`."""
    commands = [
        "git clone ssh://HOST:PORT/org/app      a repository; push works likewise",
        "repo list                              the names of all repositories",
        "health | ready | status [--json]       how this node does",
        "help                                   this text",
    ]
    if identity.access == "admin":
        commands.insert(2, "repo create NAME [--object-format=sha256]")
        commands.insert(3, "repo delete NAME                       into the trash")
    lines = "\n".join(f"  {command}" for command in commands)
    return (
        f"Hello {identity.user}, this is Stargate on {node}. There is no shell here.\n"
        f"Your key has {identity.access} access: you may {ALLOWED[identity.access]}.\n{lines}\n"
    )
