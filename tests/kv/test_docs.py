"""The examples of docs/git-kv.md are run, and print what the page says; the helps name everything."""

import re
import subprocess
from pathlib import Path

import pytest

from stargate_gate.cli.kv.main import SECTIONS
from stargate_gate.exitcodes import ExitCode
from tests.support.kv import Kv

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "git-kv.md").read_text()
MANUAL = (ROOT / "docs" / "git-kv.1").read_text()
COMMANDS = [entry.name for section in SECTIONS for entry in section.entries]
EXAMPLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples() -> list[tuple[str, str]]:
    """(command, expected output) in the order of the page; "> " continues a command."""
    found: list[tuple[str, str]] = []
    for line in "".join(EXAMPLE.findall(PAGE)).splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif line.startswith("> "):
            found[-1] = (f"{found[-1][0]}\n{line[2:]}", "")
        else:
            found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
    return found


def test_every_example_of_the_page_prints_what_it_says(kv: Kv) -> None:
    """In one shell, as somebody who pastes them one after the other."""
    assert len(examples()) > 30
    mark = "--- end of example ---"
    script = "".join(
        f"{command}\nstatus=$?\n[ $status = 0 ] || echo \"[exit $status]\"\necho '{mark}'\n"
        for command, _ in examples()
    )
    done = subprocess.run(
        ["sh"], input=script, cwd=kv.path, env=kv.environment(), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=110, check=True,
    )  # fmt: skip
    printed = done.stdout.split(f"{mark}\n")[:-1]
    for (command, expected), output in zip(examples(), printed, strict=True):
        pattern = ".*".join(re.escape(part) for part in expected.rstrip("\n").split("…"))
        assert re.fullmatch(pattern, output.rstrip("\n"), re.DOTALL), (
            f"$ {command}\n{output}\nexpected:\n{expected}"
        )


def test_the_table_of_exit_codes_is_that_of_the_code() -> None:
    """No code more, none less."""
    own = {
        ExitCode.OK, ExitCode.NO_SUCH_KEY, ExitCode.CONFLICT, ExitCode.BAD_KEY, ExitCode.GIT_FAILED,
        ExitCode.EXPIRED, ExitCode.NOT_LEADER, ExitCode.USAGE,
    }  # fmt: skip
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)} == own


def test_the_overview_names_every_command(kv: Kv) -> None:
    """`git kv -h`, and `git-kv --help`: git takes `git kv --help` for itself and shows the manual page."""
    overview = kv.ok("-h").decode()
    direct = subprocess.run(
        ["git-kv", "--help"], env=kv.environment(), capture_output=True, text=True, timeout=60, check=True
    )
    assert direct.stdout == overview
    for name in COMMANDS:
        assert re.search(rf"^  {name} +[A-Z]", overview, re.MULTILINE), name
    assert "Exit codes: 0 ok, 1 no such key, 2 conflict" in overview


@pytest.mark.parametrize("command", [[name] for name in COMMANDS] + [["remote", "setup"]])
def test_every_command_has_a_help(kv: Kv, command: list[str]) -> None:
    """With --help and -h; it says what it does and which options there are."""
    text = kv.ok(*command, "--help").decode()
    assert text.startswith(f"Usage: git kv {' '.join(command)} ")
    assert text == kv.ok(*command, "-h").decode()
    if command != ["remote"]:
        for option in ("--ns", "--remote", "--json", "--timeout"):
            assert option in text


def test_the_manual_page_names_every_command_and_option(kv: Kv) -> None:
    """`git kv --help` shows it, where man finds it beside the program."""
    for name in COMMANDS:
        assert re.search(rf"^\.B git kv {name}\b", MANUAL, re.MULTILINE), name
    options = set()
    for command in [*([name] for name in COMMANDS), ["remote", "setup"], []]:
        options |= set(re.findall(r"--[a-z]+", kv.ok(*command, "-h").decode()))
    for option in options - {"--help", "--version"}:
        assert option.replace("-", r"\-") in MANUAL, option
