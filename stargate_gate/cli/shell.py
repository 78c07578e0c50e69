"""The program `stargate-shell`: the forced command of OpenSSH's sshd in front of a node.

sshd authenticates, and runs this with the user of the key, as in `command="stargate-shell --data-dir=DIR
--user=alice --access=write"` of an authorized_keys line (`stargate-authorized-keys` writes those lines). It
passes its stdin, stdout and stderr to the node on this machine, which serves them like a session of its own
SSH listener, and exits with the status that the node returns. A client can influence the environment, so only
SSH_ORIGINAL_COMMAND, GIT_PROTOCOL and SSH_CONNECTION are read, as any bytes.

It starts for every session, so it imports little: no click, no YAML, no pydantic.
"""

import os
import sys
import syslog
from collections.abc import Mapping, Sequence
from getopt import GetoptError, getopt
from pathlib import Path

from stargate_gate import __version__
from stargate_gate.control.client import hand_over
from stargate_gate.datadir.places import CONTROL_SOCKET
from stargate_gate.errors import StargateError, UsageError
from stargate_gate.exitcodes import ExitCode

COMMAND_VARIABLE = b"SSH_ORIGINAL_COMMAND"  # sshd(8): the client's command
PROTOCOL_VARIABLE = b"GIT_PROTOCOL"  # needs `AcceptEnv GIT_PROTOCOL` in sshd_config(5)
CONNECTION_VARIABLE = b"SSH_CONNECTION"  # sshd(8): client address, client port, server address, server port
MAX_BYTES = 8192  # of each variable: twice what the node accepts, so that the node can refuse it
ACCESSES = ("read", "write", "admin")
INTERRUPTED = 130  # the status that shells give to a program that SIGINT has ended
HELP = """\
usage: stargate-shell [--data-dir DIR | -c FILE] --user NAME [--access read|write|admin]

Serves one session of OpenSSH's sshd through the node on this machine. For command= lines of an
authorized_keys file, not for people.

  --data-dir DIR     the node's data_dir
  -c, --config FILE  the node's YAML file, which takes longer; else $STARGATE_CONFIG, else the
                     built-in single node
  --user NAME        the user of the key
  --access ACCESS    what that user may do  [default: write]
"""
LONG_OPTIONS = ["help", "version", "data-dir=", "config=", "user=", "access="]


def main() -> None:
    """Run it and exit with the node's status."""
    try:
        status = run(sys.argv[1:], os.environb)
    except KeyboardInterrupt:
        status = INTERRUPTED
    sys.exit(status)


def run(argv: Sequence[str], environment: Mapping[bytes, bytes]) -> int:
    """Serve one session; returns its exit status."""
    try:
        given = _options(argv)
    except UsageError as error:
        _say(f"{error}; see: stargate-shell -h")
        return error.exit_code
    if "--help" in given or "--version" in given:
        print(f"stargate-shell {__version__}" if "--version" in given else HELP.rstrip())
        return ExitCode.OK
    args = session_arguments(given["--user"], given["--access"], environment)
    try:
        answer = hand_over(_data_dir(given) / CONTROL_SOCKET, args, (0, 1, 2))
    except StargateError as error:
        return _tell_both(error)
    if answer.error:
        _say(answer.error)
    return answer.exit


def session_arguments(user: str, access: str, environment: Mapping[bytes, bytes]) -> dict[str, str | None]:
    """The arguments for the node; see `control.sessions.LocalSessions`."""
    command, protocol = environment.get(COMMAND_VARIABLE), environment.get(PROTOCOL_VARIABLE)
    return {
        "user": user,
        "access": access,
        "command": None if command is None else _text(command),
        "git_protocol": None if protocol is None else _text(protocol),
        "source": _text(environment.get(CONNECTION_VARIABLE, b"").split(b" ")[0]),
    }


def _text(value: bytes) -> str:
    """Decode as UTF-8 like git, whatever sshd's locale is; other bytes become surrogates."""
    return value[:MAX_BYTES].decode("utf-8", "surrogateescape")


def _options(argv: Sequence[str]) -> dict[str, str]:
    """The options by their long names, with defaults.

    Raises:
        UsageError: an option is unknown, missing or invalid, or there is an argument.
    """
    try:
        found, words = getopt(list(argv), "hc:", LONG_OPTIONS)
    except GetoptError as error:
        raise UsageError(str(error)) from None
    names = {"-h": "--help", "-c": "--config"}
    given = {"--access": "write", **{names.get(name, name): value for name, value in found}}
    if words:
        raise UsageError(f"{words[0]!r} is one word too many")
    if given.keys() & {"--help", "--version"}:
        return given
    if not given.get("--user"):
        raise UsageError("--user is missing")
    if given["--access"] not in ACCESSES:
        raise UsageError(f"--access is one of {', '.join(ACCESSES)}")
    given["--user"] = _text(os.fsencode(given["--user"]))
    return given


def _data_dir(given: Mapping[str, str]) -> Path:
    """The data_dir of the node."""
    if "--data-dir" in given:
        return Path(given["--data-dir"])
    from stargate_gate.config.peek import peek_paths  # noqa: PLC0415 - importing YAML takes longer than all the rest

    return peek_paths(Path(given["--config"]) if "--config" in given else None).data_dir


def _tell_both(error: StargateError) -> int:
    """Write the error with its paths to syslog, for the operator; tell the client what to do."""
    syslog.openlog("stargate-shell", syslog.LOG_PID, syslog.LOG_AUTH)
    for line in error.message.splitlines():
        syslog.syslog(syslog.LOG_ERR, line)
    _say("the node behind this SSH server does not answer: try again, or tell an operator")
    return error.exit_code


def _say(text: str) -> None:
    print(f"stargate: {text}", file=sys.stderr)


if __name__ == "__main__":
    main()
