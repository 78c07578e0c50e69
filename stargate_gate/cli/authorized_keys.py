"""The program `stargate-authorized-keys`: sshd's AuthorizedKeysCommand in front of a node.

sshd runs it for each key that a client offers, and reads its output as an authorized_keys file
(sshd_config(5)). It reads the node's authorized_keys by the rules of the node, and prints the lines of that
key, or nothing if there is any doubt. sshd ignores its stderr, so errors also go to syslog.
"""

import base64
import binascii
import os
import sys
import syslog
from collections.abc import Sequence
from datetime import UTC, datetime
from getopt import GetoptError, gnu_getopt
from pathlib import Path

from stargate_gate import __version__
from stargate_gate.access.authorized_keys import MAX_FILE_BYTES
from stargate_gate.access.forced_commands import sshd_lines
from stargate_gate.access.key_blocks import problem_of_whole
from stargate_gate.aio.foreign_files import read_regular
from stargate_gate.config.peek import Paths, peek_paths
from stargate_gate.errors import ConfigurationError, NotAllowedError, StargateError, UsageError

SHELL = "stargate-shell"
HELP = f"""\
usage: stargate-authorized-keys [-c FILE] [--shell PATH] UID TYPE KEY

Prints the authorized_keys lines of one key that a client offered, for sshd_config(5):

    AuthorizedKeysCommand /opt/stargate/bin/stargate-authorized-keys -c FILE %U %t %k
    AuthorizedKeysCommandUser git

  -c, --config FILE  the node's YAML file; else $STARGATE_CONFIG, else the built-in single node
  --shell PATH       {SHELL}, if it is not beside this program
  UID                the user who logs in: must be the one that runs the node
  TYPE, KEY          as in a public key's file
"""


def main() -> None:
    """Run it and exit with its status. With any status but 0, sshd lets nobody in."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Print the lines; returns the exit status. Errors go to stderr and syslog."""
    try:
        options, words = gnu_getopt(list(argv), "hc:", ["help", "version", "config=", "shell="])
        given = dict(options)
        if given.keys() & {"-h", "--help", "--version"}:
            print(f"stargate-authorized-keys {__version__}" if "--version" in given else HELP.rstrip())
            return 0
        config_file = given.get("--config") or given.get("-c")
        _print_lines(Path(config_file) if config_file else None, given.get("--shell"), words)
    except GetoptError as error:
        return _tell(UsageError(f"{error}; see: stargate-authorized-keys -h"))
    except StargateError as error:
        return _tell(error)
    return 0


def _print_lines(config_file: Path | None, shell: str | None, words: Sequence[str]) -> None:
    if len(words) != 3:  # noqa: PLR2004 - as in HELP
        raise UsageError("it takes UID TYPE KEY; see: stargate-authorized-keys -h")
    uid, _, key = words
    blob = _blob(key)
    paths = peek_paths(config_file)
    _require_owner(paths.data_dir, uid)
    forced = [shell or _shell_beside(), f"--data-dir={paths.data_dir}"]
    lines = sshd_lines(_read(paths), blob, datetime.now(UTC), forced)
    sys.stdout.buffer.write("".join(f"{line}\n" for line in lines).encode())
    sys.stdout.buffer.flush()


def _require_owner(data_dir: Path, uid: str) -> None:
    """The user who logs in must be the one that runs the node, because the control socket accepts no other.

    If there is no data_dir yet, any user passes; stargate-shell will report that no node runs.
    """
    try:
        owner = data_dir.stat().st_uid
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigurationError(
            [f"node.data_dir: {data_dir} cannot be looked at ({error.strerror})"]
        ) from error
    if uid != str(owner):
        raise NotAllowedError(
            f"uid {uid} may not log in here: the node on {data_dir} is uid {owner}'s; "
            "keep AuthorizedKeysCommand inside the Match block of that user"
        )


def _blob(key: str) -> bytes:
    try:
        return base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        raise UsageError("KEY is no base64; sshd_config(5) has it as %k") from None


def _read(paths: Paths) -> bytes:
    """The node's authorized_keys. If it cannot be read, nobody may log in: no older copy is used."""
    path = paths.authorized_keys
    try:
        content, _ = read_regular(path, MAX_FILE_BYTES)
    except OSError as error:
        raise ConfigurationError([f"{path} cannot be read ({error.strerror}): nobody may log in"]) from error
    if (problem := problem_of_whole(content)) is not None:
        raise ConfigurationError([f"{path}: {problem}: nobody may log in"])
    return content


def _shell_beside() -> str:
    """The path of stargate-shell: beside this program, or beside the interpreter."""
    for folder in (os.path.dirname(os.path.abspath(sys.argv[0])), os.path.dirname(sys.executable)):  # noqa: PTH100, PTH120 - fast
        path = os.path.join(folder, SHELL)  # noqa: PTH118 - fast
        if os.access(path, os.X_OK):
            return path
    raise ConfigurationError([f"no {SHELL} is beside this program: name it with --shell"])


def _tell(error: StargateError) -> int:
    syslog.openlog("stargate-authorized-keys", syslog.LOG_PID, syslog.LOG_AUTH)
    for line in error.message.splitlines():
        syslog.syslog(syslog.LOG_ERR, line)
        print(f"stargate: {line}", file=sys.stderr)
    return error.exit_code


if __name__ == "__main__":
    main()
