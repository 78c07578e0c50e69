"""The program `stargate`: the list of its commands, and how errors become messages and exit codes."""

import os
import sys
import traceback
from collections.abc import Iterator, Sequence

import click

from stargate_gate import __version__
from stargate_gate.aio.sighup import ignore
from stargate_gate.cli.lazy import Entry, LazyGroup, Section
from stargate_gate.errors import ConfigurationError, StargateError
from stargate_gate.exitcodes import ExitCode
from stargate_gate.share import documents

INTERRUPTED = 130  # the status that shells give to a program that SIGINT has ended
TRACEBACK_VARIABLE = "STARGATE_TRACEBACK"

SECTIONS = (
    Section(
        "Run a node",
        (
            Entry("demo", "stargate_gate.cli.demo:demo", "A two-node cluster on loopback, to try it out."),
            Entry("serve", "stargate_gate.cli.serve:serve", "Run a node in the foreground."),
            Entry(
                "bootstrap", "stargate_gate.cli.bootstrap:bootstrap", "Make a cluster's leader lock, once."
            ),
            Entry("check-config", "stargate_gate.cli.check_config:check_config", "Check a node's YAML file."),
        ),
    ),
    Section(
        "Ask the node on this machine",
        (
            Entry("status", "stargate_gate.cli.status:status", "Who leads, and is all well?"),
            Entry("health", "stargate_gate.cli.health:health", "Exit 0 while the node works, else 69."),
            Entry("ready", "stargate_gate.cli.ready:ready", "Exit 0 if it takes pushes, else 9."),
        ),
    ),
    Section(
        "Change the node on this machine",
        (
            Entry("repo", "stargate_gate.cli.repo:repo", "List, create, delete and verify repositories."),
            Entry(
                "rescued",
                "stargate_gate.cli.rescued:rescued",
                "List and restore what only this node had.",
            ),
            Entry(
                "address",
                "stargate_gate.cli.address:address",
                "Release the floating address after a crash.",
            ),
            Entry(
                "promote", "stargate_gate.cli.promote:promote", "Force this node to lead. Pushes may be lost."
            ),
        ),
    ),
)


@click.group(
    cls=LazyGroup,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="The YAML file is -c FILE, else $STARGATE_CONFIG, else none: a single node on loopback.\n\n"
    f"\b\nDocuments, and in examples/ YAML files to start from:\n  {documents()}",
)
@click.version_option(__version__, prog_name="stargate", message="%(prog)s %(version)s")
def cli() -> None:
    """Git over SSH that keeps serving when a machine dies."""


def main() -> None:
    """Run the command that the command line names, and exit with its status."""
    if sys.argv[1:2] == ["serve"]:
        ignore()  # SIGHUP, until the node handles it: importing its code takes a while
    sys.exit(run(sys.argv[1:]))


def run(args: Sequence[str], command: click.Command = cli, name: str = "stargate") -> int:
    """Run one command; returns its exit status. Errors go to stderr, in lines beginning with "stargate: "."""
    try:
        status = command.main(args=list(args), prog_name=name, standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return ExitCode.USAGE
    except click.ClickException as error:
        return _tell_usage(error)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        _drop_stdout()
        return ExitCode.OK
    except Exception as error:  # noqa: BLE001 - the last place to report an error in one line
        return _tell(error)
    return status if isinstance(status, int) else ExitCode.OK


def _tell_usage(error: click.ClickException) -> int:
    """Print an error of click, with the command that shows the help."""
    click.echo(f"stargate: {error.format_message()}", err=True)
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(f"see: {error.ctx.command_path} -h", err=True)
    return ExitCode.USAGE


def _tell(error: Exception) -> int:
    """Print what a command raised: a line for each known error, or one line for an unexpected one."""
    leaves = list(_leaves(error))
    known = [leaf for leaf in leaves if isinstance(leaf, StargateError)]
    if len(known) < len(leaves):
        return _tell_unexpected(error)
    for leaf in known:
        for line in leaf.problems if isinstance(leaf, ConfigurationError) else (leaf.message,):
            click.echo(f"stargate: {line}", err=True)
    return known[0].exit_code


def _tell_unexpected(error: Exception) -> int:
    if os.environ.get(TRACEBACK_VARIABLE):
        traceback.print_exception(error)
    first = next(leaf for leaf in _leaves(error) if not isinstance(leaf, StargateError))
    detail = " ".join(str(first).split())
    click.echo(
        f"stargate: unexpected {type(first).__name__}: {detail or 'no message'}; "
        f"run it again with log.level: debug, or with {TRACEBACK_VARIABLE}=1, to see where",
        err=True,
    )
    return ExitCode.INTERNAL


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors in a group of errors, else the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _drop_stdout() -> None:
    """Nobody reads stdout any more, as in `stargate repo list | head -1`: avoid an error at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
