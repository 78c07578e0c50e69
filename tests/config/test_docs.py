"""The samples load, and the page of every key tells the truth about the model."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic_core import PydanticUndefined

from stargate_gate.config.endpoint import Endpoint
from stargate_gate.config.findings import dotted
from stargate_gate.config.load import load_config
from stargate_gate.config.mistakes import known_keys
from stargate_gate.config.model import Config

DOCS = Path(__file__).resolve().parents[2] / "docs"
SAMPLES = sorted((DOCS / "examples").glob("*.yaml"))
IN_WORDS = {
    "node.name": "the host name",
    "node.data_dir": "`$XDG_DATA_HOME/stargate`, else `~/.local/share/stargate`",
    "limits.max_pushes": "a quarter of `limits.max_sessions`",
    "limits.max_pushes_per_key": "an eighth of `limits.max_sessions`",
    "limits.max_connections_per_key": "half of `limits.max_sessions`",
    "limits.max_sessions_per_key": "a quarter of `limits.max_sessions`",
    "limits.max_sessions_per_address": "half of `limits.max_sessions`",
    "ssh.authorized_keys": "`authorized_keys` in `node.data_dir`",
}
SECTIONS = {key for key, model in known_keys().items() if model is not None}


def shown(value: object) -> str:
    """A default as the page writes it."""
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "-"
    if isinstance(value, tuple):
        texts = [str(item) for item in value if isinstance(item, Endpoint)]
        return f"`{texts[0] if texts else '[]'}`"
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def defaults() -> dict[str, str]:
    """Every key that is no section, with its default as the page should write it."""
    found = {}
    for key in known_keys().keys() - SECTIONS:
        model = known_keys()[key[:-1]] if len(key) > 1 else Config
        assert model is not None
        found[dotted(key)] = IN_WORDS.get(dotted(key)) or shown(model.model_fields[str(key[-1])].default)
    return found


def test_the_page_has_every_key_with_its_default() -> None:
    """No key more, no key less, each once, none with another default."""
    rows = re.findall(r"^\| `([a-z_.]+)` \|(.*)\|$", (DOCS / "configuration.md").read_text(), re.MULTILINE)
    documented = {key: [cell.strip() for cell in cells.split("|")] for key, cells in rows}
    assert len(rows) == len(documented)
    assert {key: cells[2] for key, cells in documented.items()} == defaults()
    assert all(len(cells) == 4 and cells[0] and cells[3] for cells in documented.values())


def test_units_are_in_the_names() -> None:
    """What the page says of a unit is how the key ends."""
    for key, cells in re.findall(
        r"^\| `([a-z_.]+)` \|(.*)\|$", (DOCS / "configuration.md").read_text(), re.MULTILINE
    ):
        unit = cells.split("|")[1].strip()
        assert (unit == "seconds") == (key.endswith("_s") and not key.endswith("_mb_s"))
        assert (unit == "megabytes a second") == key.endswith("_mb_s")
        assert (unit == "days") == key.endswith("_days")


def test_the_problems_on_the_page_are_what_is_printed() -> None:
    """Examples of messages are real ones."""
    page = (DOCS / "configuration.md").read_text()
    assert "node.data_dri: unknown key; did you mean 'data_dir'?" in page
    assert "election.heartbeat_s: must be a number, but is the text '1'; write 1 without quotes" in page


def test_there_are_samples() -> None:
    """A pair and a single node, to copy."""
    assert [path.name for path in SAMPLES] == ["node-a.yaml", "node-b.yaml", "single.yaml"]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_every_sample_loads(path: Path) -> None:
    """As it is shipped."""
    config = load_config(path)
    assert (config.cluster is None) == (path.name == "single.yaml")


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_every_key_of_a_sample_has_a_comment(path: Path) -> None:
    """A sample explains itself."""
    lines = path.read_text().splitlines()
    for line in lines:
        if re.match(r"\s+[a-z_]+: *[^ #]|^[a-z_]+: *[^ #]", line):
            assert " # " in line, line


def test_samples_have_every_key() -> None:
    """What a sample leaves out cannot be found there."""
    missing = {
        name: {
            dotted(key)
            for key in known_keys()
            if not given(yaml.safe_load((DOCS / "examples" / name).read_text()), key)
        }
        for name in ("node-a.yaml", "single.yaml")
    }
    cluster_only = {dotted(key) for key in known_keys() if key[0] == "cluster"}
    assert missing == {
        "node-a.yaml": set(),
        "single.yaml": cluster_only | {"ssh.advertise", "election.flock.path"},
    }


def given(data: object, key: tuple[str | int, ...]) -> bool:
    """Whether `key` is in the file."""
    for part in key:
        if not isinstance(data, dict) or part not in data:
            return False
        data = data[part]
    return True


def test_samples_show_the_defaults() -> None:
    """They say so; places of files, names and addresses are the sample's own."""
    default = Config()
    for path in SAMPLES:
        config = load_config(path)
        for section in ("replication", "repositories", "health", "limits", "log"):
            assert getattr(config, section) == getattr(default, section), (path.name, section)
        flock = config.election.flock.model_copy(update={"path": None})
        assert config.election.model_copy(update={"flock": flock}) == default.election


def test_the_nodes_of_the_pair_differ_in_name_and_address_only() -> None:
    """As the page says."""
    one, other = (yaml.safe_load(path.read_text()) for path in SAMPLES[:2])
    assert one["node"].pop("name") != other["node"].pop("name")
    assert one["ssh"].pop("advertise") != other["ssh"].pop("advertise")
    assert one == other
