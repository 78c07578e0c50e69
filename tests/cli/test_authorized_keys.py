"""`stargate-authorized-keys`: what sshd hears about one key, and nothing when in doubt."""

import os
from pathlib import Path

import pytest

from tests.support.cluster import make_key

from .conftest import Done, console_script, finished

ME = str(os.geteuid())


@pytest.fixture
def key(tmp_path: Path) -> tuple[str, str]:
    """Type and base64 of a fresh key."""
    kind, encoded, _ = make_key(tmp_path / "key").with_suffix(".pub").read_text().split()
    return kind, encoded


@pytest.fixture
def keys_file(tmp_path: Path, config_file: Path) -> Path:
    """Where the node of `config_file` looks for keys."""
    assert config_file.exists()
    (tmp_path / "data").mkdir(mode=0o700)
    return tmp_path / "data" / "authorized_keys"


async def asked(config_file: Path, *words: str) -> Done:
    """As sshd runs it: a path, another folder, next to no environment."""
    program = console_script("stargate-authorized-keys")
    return await finished(program, "-c", str(config_file), *words, cwd=Path("/"))


async def test_it_prints_the_lines_of_that_key_only(
    config_file: Path, keys_file: Path, key: tuple[str, str], tmp_path: Path
) -> None:
    """With the stargate-shell that was installed beside it, and the data_dir of the YAML file."""
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text()
    keys_file.write_text(f"# keys\n{other}\nbroken\n{' '.join(key)} älice\n")
    done = await asked(config_file, ME, *key)
    assert (done.status, done.err) == (0, "")
    shell = console_script("stargate-shell")
    assert done.out == (
        f'command="{shell} --data-dir={tmp_path / "data"} --user=älice --access=write",'
        f"restrict {' '.join(key)}\n"
    ).replace("--user=älice", "'--user=älice'")


async def test_an_unknown_key_is_no_error(config_file: Path, keys_file: Path, key: tuple[str, str]) -> None:
    """Clients offer all that they have."""
    keys_file.write_text("")
    done = await asked(config_file, ME, *key)
    assert (done.status, done.out, done.err) == (0, "", "")


async def test_another_login_gets_nothing(config_file: Path, keys_file: Path, key: tuple[str, str]) -> None:
    """Above all not root, should the drop-in lose its Match line."""
    keys_file.write_text(" ".join(key))
    done = await asked(config_file, str(os.geteuid() + 1), *key)
    assert (done.status, done.out) == (77, "")
    assert "may not log in here" in done.err


async def test_keys_that_cannot_be_read_let_nobody_in(
    config_file: Path, keys_file: Path, key: tuple[str, str]
) -> None:
    """The node's own listener keeps the last good ones; here there are none."""
    assert not keys_file.exists()
    done = await asked(config_file, ME, *key)
    assert (done.status, done.out) == (78, "")
    assert "nobody may log in" in done.err


async def test_a_file_that_is_too_large_lets_nobody_in(
    config_file: Path, keys_file: Path, key: tuple[str, str]
) -> None:
    """As the node, which would not read it."""
    with keys_file.open("wb") as file:
        file.write(f"{' '.join(key)}\n".encode())
        file.truncate(16 * 2**20 + 1)
    done = await asked(config_file, ME, *key)
    assert (done.status, done.out) == (78, "")


async def test_a_broken_yaml_file_lets_nobody_in(tmp_path: Path, key: tuple[str, str]) -> None:
    """With the words of check-config."""
    (tmp_path / "node.yaml").write_text("node: {data_dir: 7}\n")
    done = await asked(tmp_path / "node.yaml", ME, *key)
    assert (done.status, done.out) == (78, "")
    assert "node.data_dir" in done.err


@pytest.mark.parametrize("words", [(), ("0",), ("0", "ssh-ed25519", "!!!"), ("0", "a", "b", "c"), ("--no",)])
@pytest.mark.usefixtures("keys_file")
async def test_wrong_words_are_64(config_file: Path, words: tuple[str, ...]) -> None:
    """As a wrong line in sshd_config would give."""
    done = await asked(config_file, *(ME if word == "0" else word for word in words))
    assert (done.status, done.out) == (64, "")


async def test_help_tells_the_line_for_sshd_config(tmp_path: Path) -> None:
    """And --version is there."""
    done = await finished(console_script("stargate-authorized-keys"), "-h", cwd=tmp_path)
    assert done.status == 0
    assert "%U %t %k" in done.out
    done = await finished(console_script("stargate-authorized-keys"), "--version", cwd=tmp_path)
    assert done.out.startswith("stargate-authorized-keys ")
