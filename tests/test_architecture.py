"""Documents name modules and files that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "stargate_gate"
FILE = re.compile(r"`((?:[\w.-]+/)*[\w-]+(?:\.py|/))`")
NAME = re.compile(r"`([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)`")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(#[^)]+)?\)")
PAGES = ("ARCHITECTURE.md", "CONTRIBUTING.md", "docs/how-it-works.md", "docs/formats.md")
# What is below a data_dir, and not in the sources.
ELSEWHERE = {
    "hooks/",
    "trash/",
    "state/",
    "run/writers/",
    "refs/stargate/rescued/",
    "rescued/",
    "intents/",
    "repositories/",
}


@pytest.mark.parametrize("page", PAGES)
def test_each_module_named_exists(page: str) -> None:
    """By its path from stargate_gate/, or from the top of the checkout."""
    named = set(FILE.findall((ROOT / page).read_text())) - ELSEWHERE
    missing = [one for one in sorted(named) if not (PACKAGE / one).exists() and not (ROOT / one).exists()]
    assert missing == []


def test_each_class_and_function_named_exists() -> None:
    """Whoever searches for a name in the architecture finds it in the code."""
    named = set(NAME.findall((ROOT / "ARCHITECTURE.md").read_text()))
    code = [path.read_text() for top in ("stargate_gate", "tests") for path in (ROOT / top).rglob("*.py")]
    words = set(re.findall(r"\w+", "\n".join(code)))
    assert {name for name in named if not words.issuperset(name.split("."))} == set()


def test_the_glossary_has_each_word_once_and_only_what_exists() -> None:
    """Words that are only planned are not among the others."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    rows = text.partition("## Glossary")[2].partition("\n## ")[0]
    words = re.findall(r"^\| ([^|]+) \|", rows, re.MULTILINE)[1:]
    assert len(words) > 20
    assert len(words) == len(set(words))
    assert "planned" not in rows


@pytest.mark.parametrize(
    "page",
    [
        str(path.relative_to(ROOT))
        for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("s*d/*.md")])
    ],
)
def test_each_link_leads_somewhere(page: str) -> None:
    """To a file of the checkout, and to a heading in it."""
    wrong = []
    for target, heading in LINK.findall((ROOT / page).read_text()):
        path = (ROOT / page).parent / target
        if not path.exists():
            wrong.append(target)
        elif heading and heading[1:] not in _anchors(path.read_text()):
            wrong.append(target + heading)
    assert wrong == []


def test_every_package_is_in_the_architecture() -> None:
    """A new one has a row there."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert {name for name in packages if f"`{name}/`" not in text} == set()


def _anchors(text: str) -> set[str]:
    """As GitHub makes them from headings."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
