"""What is read of the YAML file in haste is what the whole model reads."""

import sys
from pathlib import Path

import pytest

from stargate_gate.config.load import load_config
from stargate_gate.config.peek import peek_paths
from stargate_gate.errors import ConfigurationError
from tests.support.clients import run

PLAIN = [
    "node: {name: a, data_dir: /var/lib/stargate}\n",
    "node: {name: a, data_dir: data}\nssh: {authorized_keys: keys/users}\n",
    "node: {name: a, data_dir: ~/data}\nssh:\n  authorized_keys: ~/users\n",
    "node:\n  name: a\n  data_dir: ../over/there\nssh:\n",
    'node: {name: a, data_dir: "données"}\nssh: {authorized_keys: /etc/stargate/authorized_keys}\n',
    "\ufeffnode: {name: a, data_dir: /srv/git}\n",
]
ODD = [
    "node: {}\n",
    "node:\n",
    "ssh: {authorized_keys: /etc/keys}\n",
    "log: {level: debug}\n",
]
BROKEN = [
    "",
    "- a\n",
    "node: {name: a, data_dir: 7}\n",
    "node: {name: a, data_dir: 2026-11-27}\n",
    "node: {name: a, data_dir: ~nobody-of-that-name/data}\n",
    "node: [1, 2]\n",
    "node: {name: a, data_dir: ''}\n",
    "node: {name: a, data_dir: /srv/git}\nssh: {authorized_keys: [a]}\n",
    "node: {name: a, data_dir: /srv/git}\nssh: {authorized_keys: ''}\n",
    "node: {name: a, data_dir: /srv/git\n",
    "node: !!python/object/apply:os.system ['false']\n",
    "[" * 5000,
]


@pytest.mark.parametrize("text", [*PLAIN, *ODD])
def test_it_finds_what_the_model_finds(tmp_path: Path, text: str) -> None:
    """Expanded and resolved alike, defaults included; whatever the current directory is."""
    file = tmp_path / "node.yaml"
    file.write_text(text)
    config = load_config(file)
    assert peek_paths(file) == (config.node.data_dir, config.authorized_keys_path)


@pytest.mark.parametrize("text", BROKEN)
def test_what_the_model_refuses_is_refused_with_its_words(tmp_path: Path, text: str) -> None:
    """The same problems, file and line included."""
    file = tmp_path / "node.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as theirs:
        load_config(file)
    with pytest.raises(ConfigurationError) as ours:
        peek_paths(file)
    assert ours.value.problems == theirs.value.problems


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    """As load_config says it."""
    with pytest.raises(ConfigurationError, match="there is no such file"):
        peek_paths(tmp_path / "none.yaml")


def test_the_environment_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """$STARGATE_CONFIG, as everywhere."""
    (tmp_path / "node.yaml").write_text("node: {name: a, data_dir: /srv/git}\n")
    monkeypatch.setenv("STARGATE_CONFIG", str(tmp_path / "node.yaml"))
    assert peek_paths(None).data_dir == Path("/srv/git")


async def test_a_plain_file_is_read_without_the_model(tmp_path: Path) -> None:
    """That is what it is for."""
    file = tmp_path / "node.yaml"
    file.write_text(PLAIN[0])
    code = (
        "import sys, pathlib; from stargate_gate.config.peek import peek_paths; "
        f"peek_paths(pathlib.Path({str(file)!r})); print('pydantic' in sys.modules)"
    )
    done = await run(sys.executable, "-c", code)
    assert done.stdout == "False\n", done.stderr
