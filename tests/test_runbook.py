"""The runbook tells the truth: what can be checked of it without an engine."""

import re
from pathlib import Path

import pytest

from stargate_gate.config.load import load_config
from stargate_gate.health.concerns import LEVELS, TABLE
from tests.support.cluster import running_cluster
from tests.support.runbook import NOT_RUN, RUNBOOK, blocks, script

ROOT = RUNBOOK.parents[1]
TEXT = RUNBOOK.read_text()
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)")
TOPICS = """design in one picture, prerequisites, set up a pair, day 2, what to monitor, planned switchover,
rolling upgrade, replace a node, add a third node, backup and restore, rotate keys,
move an existing git server in, both nodes down, both claim to lead, lost lock volume,
a standby does not catch up, the sync set is empty, rescued refs appeared, stale lock files, drills"""


def anchors(markdown: str) -> set[str]:
    """Those that GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_topic_is_there() -> None:
    """Those of an operator's day and night."""
    headings = [heading.lower() for heading in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)]
    wanted = TOPICS.replace("\n", " ").split(", ")
    assert [topic for topic in wanted if not any(topic in heading for heading in headings)] == []


def test_every_block_of_commands_is_run_or_says_why_not() -> None:
    """And what is run, is run by the container tests under its name."""
    scenarios = (ROOT / "integration" / "test_runbook.py").read_text()
    commands = [block for block in blocks(TEXT) if block.language == "sh"]
    assert len(commands) > 30
    for block in commands:
        assert bool(block.name) != block.text.startswith(NOT_RUN), f"line {block.line}"
        assert not block.name or f'"{block.name}"' in scenarios, f"line {block.line}: {block.name}"


@pytest.mark.parametrize("file", ["docs/runbook.md", "sshd/README.md", "systemd/README.md"])
def test_links_lead_somewhere(file: str) -> None:
    """Files, and headings in them."""
    page = ROOT / file
    for target, anchor in LINK.findall(page.read_text()):
        if target.startswith("http"):
            continue
        other = (page.parent / target).resolve() if target else page
        assert other.exists(), target
        assert not anchor or anchor in anchors(other.read_text()), f"{target}#{anchor}"


def test_what_is_to_be_monitored_and_looked_for_exists(tmp_path: Path) -> None:
    """Metrics in what a running node shows, events in the code that logs them."""
    with running_cluster(tmp_path, nodes=1) as cluster:
        shown = cluster.nodes[0].get("/metrics")[1].decode()
    wanted = {
        name
        for name in re.findall(r"\b((?:stargate|process)_[a-z_]+)\b", TEXT)
        if not name.startswith("stargate_gate")
    }
    assert len(wanted) > 10
    assert [name for name in wanted if name not in shown] == []
    code = "".join(path.read_text() for path in (ROOT / "stargate_gate").rglob("*.py"))
    events = re.findall(
        r"`((?:election|leadership|standby|sync_set|mirror|repository)_[a-z_]+|leading)`", TEXT
    )
    assert len(set(events)) > 6
    assert [event for event in events if f'"{event}"' not in code] == []


def test_each_kind_of_concern_has_its_row() -> None:
    """Word, level, what it says (as tests/node shows it), and what to do. Its link leads to a heading."""
    found = re.findall(
        r"^\| `([a-z_]+)` \| (critical|warning|unknown) \| (.*) \| (.*) \|$", TEXT, re.MULTILINE
    )
    assert {kind: level for kind, level, _, _ in found} == {
        kind: level.word for kind, level in LEVELS.items()
    }
    shown = " ".join((ROOT / "tests" / "node" / "testdata" / "status.txt").read_text().split())
    for kind, _, says, todo in found:
        for words in re.findall(r"`([^`]+)`", says):
            assert words.replace("…", "").strip() in shown, f"{kind}: {words}"
        assert todo, kind
    missing = {about.runbook for about in TABLE.values()} - anchors(TEXT)
    assert missing == set()


def test_readme_runbook_and_samples_set_up_one_and_the_same_pair(tmp_path: Path) -> None:
    """The same YAML but for what is a default, the same user, the same modes."""
    (block,) = [block for block in blocks(TEXT) if block.name == "setup-yaml"]
    file = tmp_path / "stargate.yaml"
    file.write_text(block.text.partition("<<'YAML'\n")[2].partition("\nYAML")[0])
    samples = ROOT / "docs" / "examples"
    assert load_config(file) == load_config(samples / "node-a.yaml")
    other = file.read_text().replace("node-a", "node-b")
    file.write_text(other)
    assert load_config(file) == load_config(samples / "node-b.yaml")
    readme = (ROOT / "README.md").read_text()
    for name, _, uid, _, home, shell in re.findall(
        r"^u (\S+) ()(\d+) (\S+|\".*\") (\S+) (\S+)$",
        (ROOT / "systemd" / "sysusers.d" / "stargate.conf").read_text(),
        re.MULTILINE,
    ):
        assert f"--uid {uid} --gid {name} --home-dir {home} --no-create-home --shell {shell} {name}" in readme
    for path, mode, owner, group in re.findall(
        r"^d (\S+) (\d+) (\S+) (\S+) -$",
        (ROOT / "systemd" / "tmpfiles.d" / "stargate.conf").read_text(),
        re.MULTILINE,
    ):
        assert f"install -d -m {mode} -o {owner} -g {group} {path}\n" in readme
    keys = script("setup-keys")
    for line in [line for line in keys.splitlines() if line.startswith(("ssh-keygen", "chgrp", "umask"))]:
        assert " ".join(line.split()) in " ".join(readme.split()), line
