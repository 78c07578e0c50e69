"""docs/formats.md and stargate_gate/formats.py name the same files and messages, with the same numbers."""

import ast
import re
from pathlib import Path

from stargate_gate.formats import FORMATS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "formats.md").read_text()
ROW = re.compile(r"^\| ([a-z_ ]+) \| (.+?) \| ([0-9]+) \| (.+) \|$", re.MULTILINE)


def test_the_page_has_every_format_and_no_other() -> None:
    """Name, place and number, in the order of the table in the code."""
    found = [(name, where.replace("`", ""), int(number)) for name, where, number, _ in ROW.findall(PAGE)]
    assert found == [(one.name, one.where, one.number) for one in FORMATS]


def test_every_format_of_the_module_is_in_its_table() -> None:
    """A new one cannot be forgotten there."""
    tree = ast.parse((ROOT / "stargate_gate" / "formats.py").read_text())
    made = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id.isupper() and not target.id.startswith("_")
    }
    assert len(made) == len(FORMATS) == len(set(FORMATS))


def test_every_durable_file_is_on_the_page() -> None:
    """Each name that the code gives to a file in the data_dir is there, also those that LAYOUT covers."""
    names = {
        "data_dir_id", "node_name", "seal_key", "ssh_host_ed25519_key", "stargate-id", "stargate-folder",
        "config.before-stargate", "boot_id", "node.lock", "writers.lock", "leading.lock", "authorized_keys",
        "leader.lock",
    }  # fmt: skip
    assert [name for name in sorted(names) if f"{name}`" not in PAGE] == []
    code = "\n".join(path.read_text() for path in (ROOT / "stargate_gate").rglob("*.py"))
    assert [name for name in sorted(names) if name not in code] == []


def test_whoever_writes_a_file_durably_has_a_format_or_is_known_here() -> None:
    """`write_durably` itself takes any bytes: who calls it is listed, so that a new file gets a number."""
    callers = {
        str(path.relative_to(ROOT / "stargate_gate"))
        for path in (ROOT / "stargate_gate").rglob("*.py")
        if re.search(r"\bwrite_durably\(", path.read_text()) and path.name != "files.py"
    }
    assert callers == {
        "access/host_keys.py",  # OpenSSH's format
        "datadir/layout.py",  # files of one line
        "datadir/writers.py",  # boot_id
        "replication/rescue/journal.py",  # JOURNAL
        "replication/standby/intent_files.py",  # INTENT
        "repos/adoption.py",  # config with CONFIG_SEAL, config.before-stargate, seal_key
        "repos/furnishing.py",  # HEAD of a new repository
        "repos/hooks.py",  # the shipped hooks
        "repos/identities.py",  # stargate-id
        "scrub/progress.py",  # SCRUB
    }
