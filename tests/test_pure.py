"""Modules that call themselves pure, and the import contract that holds them to it."""

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONTRACT = "pure modules reach no I/O, no clock, no randomness and no log"


def says_pure(path: Path) -> bool:
    """Whether the module's docstring has the word."""
    return re.search(r"\bPure\b", ast.get_docstring(ast.parse(path.read_text())) or "") is not None


def test_the_contract_lists_the_pure_modules() -> None:
    """A module that says "Pure" is checked, and one that is checked says so."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    listed = next(one["source_modules"] for one in contracts if one["name"] == CONTRACT)
    saying = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "stargate_gate").rglob("*.py")
        if path.name != "__init__.py" and says_pure(path)
    ]
    assert sorted(listed) == sorted(saying)
    assert listed == sorted(listed)
