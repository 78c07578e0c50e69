"""Writing YAML files, and reading what is wrong with them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from stargate_gate.config.load import load_config
from stargate_gate.errors import ConfigurationError

Write = Callable[[str], Path]
Problems = Callable[[str], list[str]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Put text into node.yaml."""

    def write_text(text: str) -> Path:
        path = tmp_path / "node.yaml"
        path.write_text(text)
        return path

    return write_text


@pytest.fixture
def problems(write: Write) -> Problems:
    """What load_config says about a text, without the folder of the file."""

    def problems_of(text: str) -> list[str]:
        path = write(text)
        with pytest.raises(ConfigurationError) as caught:
            load_config(path)
        assert caught.value.exit_code == 78
        assert all(line.startswith(str(path)) for line in caught.value.problems)
        return [line.removeprefix(f"{path.parent}/") for line in caught.value.problems]

    return problems_of
