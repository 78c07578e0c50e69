"""The console script against a real control socket: output, exit codes, one-line errors."""

import asyncio
import os
import shlex
import sys
from pathlib import Path

import click
import pytest

from stargate_gate import __version__
from stargate_gate.cli.main import SECTIONS, cli, run
from stargate_gate.cli.status import in_colour
from stargate_gate.errors import ConfigurationError, UsageError
from stargate_gate.health.concerns import Level

from .conftest import FakeNode, Stargate, console_script, finished


async def test_version_and_help_name_everything(stargate: Stargate) -> None:
    """`-h` shows each command with one line."""
    assert (await stargate("--version")).out == f"stargate {__version__}\n"
    overview = await stargate("-h")
    assert overview.status == 0
    for command in (
        "serve",
        "bootstrap",
        "check-config",
        "status",
        "health",
        "ready",
        "repo",
        "promote",
        "demo",
    ):
        assert f"\n  {command} " in overview.out


def test_the_overview_says_what_each_command_says_itself() -> None:
    """The lines of the overview are those of the commands' own help."""
    context = click.Context(cli)
    for section in SECTIONS:
        for entry in section.entries:
            command = cli.get_command(context, entry.name)
            assert command is not None
            assert command.name == entry.name
            assert (command.help or "").split("\n\n")[0].replace("\n", " ").startswith(entry.help[:-1])


async def test_no_command_is_the_help_and_a_usage_error(stargate: Stargate) -> None:
    """Scripts that forget the command do not pass."""
    done = await stargate()
    assert (done.status, done.out) == (64, "")
    assert done.err.startswith("Usage: stargate")


@pytest.mark.parametrize(
    "args", ["statu", "status --jsno", "repo create", "repo create x --object-format md5"]
)
async def test_a_wrong_command_line_is_64(stargate: Stargate, args: str) -> None:
    """With a line that says what is wrong, and where the help is."""
    done = await stargate(*args.split())
    assert done.status == 64
    assert done.err.startswith("stargate: ")
    assert "\nsee: stargate" in done.err


@pytest.mark.parametrize("command", ["status", "health", "ready", "repo list", "promote --accept-data-loss"])
async def test_without_a_node_commands_say_so(stargate: Stargate, config_file: Path, command: str) -> None:
    """Exit 69 (of status: 3, it cannot be told) and where it was looked for."""
    done = await stargate(*command.split(), "-c", str(config_file))
    assert done.status == (3 if command == "status" else 69)
    where = config_file.parent / "data"
    assert done.err.splitlines()[-1] == (
        f"stargate: no stargate serve runs on {where}: start it, or name its YAML file with -c"
    )


async def test_a_broken_file_is_every_problem_in_a_line(stargate: Stargate, tmp_path: Path) -> None:
    """Exit 78, no traceback."""
    file = tmp_path / "broken.yaml"
    file.write_text("node: {nam: x}\nssh: {listen: nowhere}\n")
    done = await stargate("status", "-c", str(file))
    assert done.status == 78
    lines = done.err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"stargate: {file}:") for line in lines)


async def test_the_file_may_come_from_the_environment(
    stargate: Stargate, config_file: Path, node: FakeNode
) -> None:
    """$STARGATE_CONFIG, as for serve."""
    done = await stargate("status", env={"STARGATE_CONFIG": str(config_file)})
    assert (done.status, done.out) == (0, "did status\n")
    assert node.asked == [("status", {"json": False})]


async def test_commands_ask_the_node(stargate: Stargate, config_file: Path, node: FakeNode) -> None:
    """Each with its arguments; the node's output and exit status are the command's."""
    with_file = ("-c", str(config_file))
    assert (await stargate("status", "--json", *with_file)).out == "did status\n"
    done = await stargate("health", *with_file)
    assert (done.status, done.out) == (69, "not healthy: git: git does not start\n")
    done = await stargate("ready", *with_file)
    assert (done.status, done.out, done.err) == (9, "", "stargate: not leader: node-b is a standby\n")
    assert (await stargate("repo", "create", "org/app", "--object-format", "sha256", *with_file)).status == 0
    assert (await stargate("repo", "delete", "org/app", *with_file)).status == 0
    assert (await stargate("rescued", "list", *with_file)).out == "did rescued-list\n"
    restored = await stargate("rescued", "restore", "org/app", "1a2b", "--as", "wip", "--to", "x", *with_file)
    assert restored.status == 0
    assert (await stargate("rescued", "drop", "org/app", "1a2b", *with_file)).status == 0
    assert node.asked == [
        ("status", {"json": True}),
        ("health", {}),
        ("ready", {}),
        ("repo-create", {"name": "org/app", "object_format": "sha256"}),
        ("repo-delete", {"name": "org/app"}),
        ("rescued-list", {"json": False}),
        ("rescued-restore", {"name": "org/app", "oid": "1a2b", "as": "wip", "to": "x"}),
        ("rescued-drop", {"name": "org/app", "oid": "1a2b"}),
    ]


async def test_promote_says_what_it_does_and_needs_the_flag(
    stargate: Stargate, config_file: Path, node: FakeNode
) -> None:
    """Nobody loses pushes by a short command."""
    done = await stargate("promote", "-c", str(config_file))
    assert done.status == 64
    assert "  - did promote-risk\n" in done.err
    assert done.err.splitlines()[-1] == "stargate: nothing was done: promote needs --accept-data-loss"
    assert node.asked == [("promote-risk", {})]
    done = await stargate("promote", "--accept-data-loss", "-c", str(config_file))
    assert (done.status, done.out) == (0, "did promote\n")
    assert done.err == "accepted: did promote-risk\n", "the whole of it once, without the flag"
    assert node.asked[1:] == [("promote-risk", {}), ("promote", {"accept_data_loss": True})]


@pytest.mark.usefixtures("node")
async def test_a_reader_that_stops_early_is_no_error(config_file: Path, tmp_path: Path) -> None:
    """`stargate repo list | head -1`."""
    command = f"{shlex.quote(console_script('stargate'))} repo list -c {config_file} | head -1"
    done = await finished("bash", "-o", "pipefail", "-c", command, cwd=tmp_path)
    assert (done.status, done.out, done.err) == (0, "org/app0\n", "")


async def test_asking_imports_no_server(tmp_path: Path) -> None:
    """Monitoring runs `stargate health` every few seconds: it must start fast."""
    code = (
        "import sys; from stargate_gate.cli.main import run; run(['health'])\n"
        "print(sorted(set(sys.modules) & {'asyncssh', 'aiohttp', 'prometheus_client', 'stargate_gate.node'}))"
    )
    done = await finished(sys.executable, "-c", code, cwd=tmp_path)
    assert done.out == "[]\n"


def test_unexpected_errors_are_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 70, no traceback unless it is asked for."""

    def broken(*_: object) -> None:
        raise ValueError("a bug\nof two lines")

    monkeypatch.setattr("stargate_gate.cli.status.ask_node", broken)
    assert run(["status"]) == 70
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "stargate: unexpected ValueError: a bug of two lines; run it again with log.level: debug"
    )
    monkeypatch.setenv("STARGATE_TRACEBACK", "1")
    assert run(["status"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_errors_of_several_tasks_are_told_one_by_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task group of the node's may fail with more than one."""

    def broken(*_: object) -> None:
        raise ExceptionGroup("tasks", [ConfigurationError(["a: b", "c: d"]), UsageError("e")])

    monkeypatch.setattr("stargate_gate.cli.status.ask_node", broken)
    assert run(["status"]) == 78
    assert capsys.readouterr().err == "stargate: a: b\nstargate: c: d\nstargate: e\n"


def test_interrupting_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    """As shells have it."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stargate_gate.cli.status.ask_node", interrupted)
    assert run(["status"]) == 130


@pytest.fixture
def cluster_file(tmp_path: Path) -> Path:
    """A YAML file of a cluster, with what it points at."""
    for name in ("cluster", "host"):
        os.system(f"ssh-keygen -q -t ed25519 -N '' -f {shlex.quote(str(tmp_path / name))}")
    (tmp_path / "shared").mkdir()
    file = tmp_path / "node-a.yaml"
    file.write_text(
        "node: {name: node-a, data_dir: a}\n"
        'cluster: {name: prod, address: "stargate.local:2222", key: cluster}\n'
        'ssh: {listen: "127.0.0.1:2222", host_keys: [host]}\n'
        "election: {flock: {path: shared/leader.lock}}\n"
    )
    return file


async def test_bootstrap_makes_the_lock_once(stargate: Stargate, cluster_file: Path, tmp_path: Path) -> None:
    """It prints the cluster's id and what to do next; a second time it refuses and changes nothing."""
    done = await stargate("bootstrap", "-c", str(cluster_file))
    assert done.status == 0, done.err
    first, *_ = done.out.splitlines()
    assert first.startswith("cluster prod is made; its id is ")
    assert f"stargate serve -c {cluster_file}" in done.out
    assert str(tmp_path / "cluster") in done.out
    content = (tmp_path / "shared" / "leader.lock").read_bytes()
    again = await stargate("bootstrap", "-c", str(cluster_file))
    assert again.status == 64
    assert "already" in again.err
    assert (tmp_path / "shared" / "leader.lock").read_bytes() == content


async def test_of_two_bootstraps_at_once_one_succeeds(
    stargate: Stargate, cluster_file: Path, tmp_path: Path
) -> None:
    """From two nodes, by two operators."""
    other = tmp_path / "node-b.yaml"
    other.write_text(cluster_file.read_text().replace("node-a, data_dir: a", "node-b, data_dir: b"))
    both = await asyncio.gather(*(stargate("bootstrap", "-c", str(file)) for file in (cluster_file, other)))
    assert sorted(done.status for done in both) == [0, 64]


async def test_bootstrap_needs_a_cluster(stargate: Stargate, config_file: Path) -> None:
    """A single node has nothing to bootstrap."""
    done = await stargate("bootstrap", "-c", str(config_file))
    assert done.status == 64
    assert "single node" in done.err


async def test_bootstrap_checks_the_file_first(
    stargate: Stargate, cluster_file: Path, tmp_path: Path
) -> None:
    """Nothing is made with keys that cannot be used."""
    (tmp_path / "cluster").unlink()
    done = await stargate("bootstrap", "-c", str(cluster_file))
    assert done.status == 78
    assert "cluster.key" in done.err
    assert not (tmp_path / "shared" / "leader.lock").exists()


def test_the_page_is_coloured_by_its_level() -> None:
    """Headline and labels; nothing else, and no letter is changed."""
    page = "node-a leads; 1 critical,\n1 warning\n\nnode       x\n! critical empty\n! warning  y\n"
    coloured = in_colour(page, Level.CRITICAL)
    assert click.unstyle(coloured) == page
    red, yellow = click.style("x", fg="red", bold=True)[:9], click.style("x", fg="yellow", bold=True)[:9]
    lines = coloured.splitlines()
    assert [line.startswith(red) for line in lines] == [True, True, False, False, True, False]
    assert lines[5].startswith(yellow)
    assert lines[3] == "node       x"


async def test_colours_are_for_terminals(config_file: Path, node: FakeNode, tmp_path: Path) -> None:
    """And not for anybody who has set NO_COLOR."""
    command = f"{shlex.quote(console_script('stargate'))} status -c {config_file}"
    script = ("script", "-qec", command, "/dev/null")  # of util-linux: on a terminal of its own
    for no_color, coloured in (("", True), ("1", False)):
        done = await finished(*script, cwd=tmp_path, env={"NO_COLOR": no_color})
        assert "did status" in done.out
        assert ("\x1b[" in done.out) is coloured
    assert len(node.asked) == 2
