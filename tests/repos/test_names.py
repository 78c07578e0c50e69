"""Which names clients may write, and that nothing they write leaves the folder of repositories."""

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stargate_gate.errors import UsageError
from stargate_gate.repos.names import MAX_COMPONENT_BYTES, RepositoryName, parse_repository_name


@pytest.mark.parametrize(
    "raw", ["org/app", "org/app.git", "/org/app", "/org/app.git", "org/app/", "org/app.git/"]
)
def test_one_repository_has_several_spellings(raw: str) -> None:
    """`org/app`, `org/app.git` and `/org/app.git` are one repository."""
    assert parse_repository_name(raw) == RepositoryName("org/app")
    assert str(parse_repository_name(raw)) == "org/app"


@pytest.mark.parametrize(
    "raw", ["a", "A.b_c+d-e", "1", "_", "a/b/c/d/e/f/g/h", "x" * MAX_COMPONENT_BYTES, "a..b"]
)
def test_ordinary_names_are_taken(raw: str) -> None:
    """Letters, digits and . _ + - make a name, up to eight levels deep."""
    assert parse_repository_name(raw).value == raw


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ("", "empty"),
        ("/", "empty"),
        (".git", "empty"),
        ("/.git", "empty"),
        ("//", "empty"),
        ("a//b", "empty component"),
        ("..", "begins with"),
        ("../a", "begins with"),
        ("a/../b", "begins with"),
        ("a/..", "begins with"),
        ("/../../etc/passwd", "begins with"),
        ("a/./b", "begins with"),
        (".hidden", "begins with"),
        (".new-0123", "begins with"),
        ("-upload-pack=x", "begins with"),
        ("a/--option", "begins with"),
        ("~/a", "only letters"),
        ("~root/a", "only letters"),
        ("a b", "only letters"),
        ("a\nb", "only letters"),
        ("a\n", "only letters"),
        ("a\0b", "only letters"),
        ("a\x1b[31m", "only letters"),
        ("a\\b", "only letters"),
        ("a:b", "only letters"),
        ("host:a", "only letters"),
        ("$(id)", "only letters"),
        ("a;b", "only letters"),
        ("é", "only letters"),
        ("\udcff", "only letters"),
        ("٣", "only letters"),
        ("a.lock", "'.lock'"),
        ("a.lock/b", "'.lock'"),
        ("a.git/b", "'.git'"),
        ("org/app.git/objects", "'.git'"),
        ("a.git.git", "'.git'"),
        ("x" * (MAX_COMPONENT_BYTES + 1), "longer"),
        ("/".join(["a"] * 9), "more than 8"),
        ("/".join(["x" * 99] * 3), "longer than 255"),
    ],
)
def test_bad_names_are_refused_with_the_reason(raw: str, why: str) -> None:
    """No `..`, no absolute path, no option, no control character, no .lock, nothing inside a repository."""
    with pytest.raises(UsageError, match="not a repository name") as caught:
        parse_repository_name(raw)
    assert why in caught.value.message
    assert caught.value.message.isprintable()


@given(st.text() | st.from_regex(r"[/.a~-]{0,12}(\.git|\.lock|/)?", fullmatch=True))
def test_whatever_is_accepted_stays_inside(raw: str) -> None:
    """An accepted name is a relative path downwards, is itself accepted again, and is the same then."""
    try:
        name = parse_repository_name(raw)
    except UsageError:
        return
    path = PurePosixPath(name.value)
    assert not path.is_absolute()
    assert path.parts == name.components
    assert not any(part.startswith((".", "-")) or part.endswith((".git", ".lock")) for part in path.parts)
    assert parse_repository_name(name.value) == parse_repository_name(f"/{name}.git") == name
