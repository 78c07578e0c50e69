"""The program `git-kv`, which git runs as `git kv`: the list of its commands, and how errors end."""

import gc
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from stargate_gate import __version__
from stargate_gate.cli.kv.options import common, common_options
from stargate_gate.cli.lazy import Entry, LazyGroup, Section
from stargate_gate.errors import StargateError
from stargate_gate.exitcodes import ExitCode
from stargate_gate.printable import escaped

INTERRUPTED = 130  # the status that shells give to a program that SIGINT has ended
TRACEBACK_VARIABLE = "STARGATE_TRACEBACK"


def _entry(name: str, text: str, module: str = "") -> Entry:
    return Entry(name, f"stargate_gate.cli.kv.{module or name}:command", text)


SECTIONS = (
    Section(
        "Write",
        (
            _entry("set", "Give a key a value."),
            _entry("del", "Delete keys.", "delete"),
            _entry("mset", "Set and delete many keys in one transaction, from a file."),
        ),
    ),
    Section(
        "Read",
        (
            _entry("get", "Write a key's value to stdout."),
            _entry("list", "Print the keys that have a value."),
            _entry("history", "Print the changes of a key, the newest first."),
        ),
    ),
    Section("Set up", (_entry("remote", "Set where writes go, from the policy of this repository."),)),
)

EPILOG = """\
Exit codes: 0 ok, 1 no such key, 2 conflict, 4 bad key, 5 git or I/O error, 7 expired, 9 not leader,
64 usage.
"""


@click.group(
    "git kv",
    cls=LazyGroup,
    sections=SECTIONS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@common_options
@click.version_option(__version__, prog_name="git-kv", message="%(prog)s %(version)s")
def cli(**said: Any) -> None:
    """Keys and values in commits, on any Git remote.

    Each write is a commit in refs/kv/NS at the remote, and one in its index refs/kv-index/NS. No writer
    silently overwrites another. If the leader dies meanwhile, the command waits for a new one.
    """
    click.get_current_context().obj = common(**said)


def main() -> None:
    """Run the command that the command line names, and exit with its status."""
    gc.disable()  # it runs for a short time, so collecting garbage is not worth it
    sys.exit(run(sys.argv[1:]))


def run(args: Sequence[str]) -> int:
    """Run one command; returns its exit status. An error is one line on stderr."""
    try:
        status = cli.main(args=list(args), prog_name="git kv", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last place to report an error in one line
        return _tell_error(error)
    return status if isinstance(status, int) else ExitCode.OK


def _tell_error(error: Exception) -> int:
    match error:
        case click.exceptions.NoArgsIsHelpError():
            click.echo(error.format_message(), err=True)
            return ExitCode.USAGE
        case click.ClickException():
            return _tell(error.format_message(), ExitCode.USAGE)
        case StargateError():
            return _tell(error.message, error.exit_code)
        case OSError():
            reason = f"{error.filename or 'I/O error'}: {error.strerror or error}"
            return _tell(reason, ExitCode.GIT_FAILED)
    if os.environ.get(TRACEBACK_VARIABLE):
        import traceback  # noqa: PLC0415 - rarely needed, and start-up time matters

        traceback.print_exception(error)
    return _tell(f"unexpected {type(error).__name__}: {error}", ExitCode.INTERNAL)


def _tell(text: str, status: ExitCode) -> int:
    click.echo(f"git kv: {escaped(' '.join(text.split()))}", err=True)
    return status


if __name__ == "__main__":
    main()
