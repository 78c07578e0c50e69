"""The console script `stargate-shell`: the forced command of stock OpenSSH in front of a node.

sshd authenticates, and runs this with the user that the key belongs to, as in
`command="stargate-shell --user alice --access write -c FILE"` of an authorized_keys line. It hands
its stdin, stdout and stderr to the node on this machine, which does with them what it does with the
sessions of its own SSH listener, and exits with the status that the node gives. Nothing of the
client's environment is believed but SSH_ORIGINAL_COMMAND and GIT_PROTOCOL, which sshd passes on.
"""

import os
import sys
import syslog
from pathlib import Path

import click

from stargate_gate import __version__
from stargate_gate.cli.main import run
from stargate_gate.cli.running_node import config_option
from stargate_gate.config.load import load_config
from stargate_gate.datadir.layout import DataDir
from stargate_gate.errors import StargateError
from stargate_gate.health.control_client import hand_over

COMMAND_VARIABLE = "SSH_ORIGINAL_COMMAND"  # sshd(8): what the client asked for
PROTOCOL_VARIABLE = "GIT_PROTOCOL"  # needs `AcceptEnv GIT_PROTOCOL` in sshd_config(5)
CONNECTION_VARIABLE = "SSH_CONNECTION"  # sshd(8): client address, client port, server address, server port


@click.command("stargate-shell", context_settings={"help_option_names": ["-h", "--help"]})
@config_option
@click.option("--user", required=True, help="Whose key it was.")
@click.option(
    "--access",
    type=click.Choice(["read", "write", "admin"]),
    default="write",
    show_default=True,
    help="What that user may do.",
)
@click.version_option(__version__, prog_name="stargate-shell", message="%(prog)s %(version)s")
def shell(config_file: Path | None, user: str, access: str) -> int:
    """Serve one session of stock OpenSSH through the node on this machine.

    For `command=` lines of an authorized_keys file, not for people.
    """
    args = {
        "user": user,
        "access": access,
        "command": os.environ.get(COMMAND_VARIABLE),
        "git_protocol": os.environ.get(PROTOCOL_VARIABLE),
        "source": os.environ.get(CONNECTION_VARIABLE, "").split(" ")[0],
    }
    try:
        data_dir = load_config(config_file).node.data_dir
        answer = hand_over(DataDir(data_dir, id="").control_socket, args, (0, 1, 2))
    except StargateError as error:
        return _tell_both(error)
    if answer.error:
        click.echo(f"stargate: {answer.error}", err=True)
    return answer.exit


def _tell_both(error: StargateError) -> int:
    """The detail, with its paths, is for the operator's syslog; the client learns what to do."""
    syslog.openlog("stargate-shell", syslog.LOG_PID, syslog.LOG_AUTH)
    for line in error.message.splitlines():
        syslog.syslog(syslog.LOG_ERR, line)
    click.echo(
        "stargate: the node behind this SSH server does not answer: try again, or tell an operator", err=True
    )
    return error.exit_code


def main() -> None:
    """Run it, and exit with the node's status."""
    sys.exit(run(sys.argv[1:], shell, "stargate-shell"))


if __name__ == "__main__":
    main()
