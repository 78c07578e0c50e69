"""What stock OpenSSH is told about a key: the same users, and no line that the node itself refuses."""

import shlex
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stargate_gate.access.authorized_keys import parse_authorized_keys, parse_line, parse_public_key
from stargate_gate.access.forced_commands import sshd_lines
from stargate_gate.access.key_options import _options, parse_options, split_options
from stargate_gate.access.sources import parse_sources

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIC"
SK = (
    "sk-ssh-ed25519@openssh.com "
    "AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB"
    "AAAABHNzaDo="
)
NOW = datetime(2030, 6, 1, 12, tzinfo=UTC)
SHELL = ("/opt/stargate/bin/stargate-shell", "--data-dir=/var/lib/stargate")


def blob_of(key: str) -> bytes:
    kind, encoded = key.split()
    return parse_public_key(kind, encoded)


def lines(*content: str, key: str = KEY) -> tuple[str, ...]:
    """What sshd gets for `key` out of a file of these lines."""
    return sshd_lines("\n".join(content).encode(), blob_of(key), NOW, SHELL)


def split(line: str) -> tuple[list[tuple[str, str | None]], str]:
    """Options of an emitted line with their values, read as sshd does, and the rest."""
    head, rest = split_options(line)
    return list(_options(head)), rest


def test_a_line_forces_the_shell_and_restricts_all_else() -> None:
    """User and access are the same as at the node's own listener."""
    (line,) = lines(
        f'environment="STARGATE_USER=bob",environment="STARGATE_ACCESS=read",pty {KEY} b@home', OTHER
    )
    assert line == (
        'command="/opt/stargate/bin/stargate-shell --data-dir=/var/lib/stargate --user=bob --access=read",'
        f"restrict {KEY}"
    )


@pytest.mark.parametrize(
    "options",
    [
        'command="rsync"',
        "cert-authority",
        'principals="git"',
        "no-cloning",
        'environment="STARGATE_ACCESS=root"',
        'environment="STARGATE_ACESS=read"',
        'from="10.0.0.0/33"',
        'expiry-time="20300601Z"',
        'expiry-time="soon"',
        'from="*.example.org"',
        'from="!192.0.2.1"',
        'from="192.0.2.1',
        "restrict,,pty",
    ],
)
def test_a_line_that_the_node_refuses_does_not_come_back_to_life(options: str) -> None:
    """A line that is refused or expired, or that no client could use, is not printed."""
    assert lines(f"{options} {KEY} alice") == ()


def test_lines_of_one_key_keep_their_order() -> None:
    """A key with several lines: sshd takes the first that fits, as the listener does."""
    first, second = lines(
        f'from="192.0.2.0/24, !192.0.2.7,*.example.org",environment="STARGATE_ACCESS=admin" {KEY} a',
        f"{OTHER} b",
        f'environment="STARGATE_ACCESS=read" {KEY} c',
    )
    assert split(first)[0][2] == ("from", "192.0.2.0/24,!192.0.2.7/32")
    assert "--access=admin" in first
    assert "--access=read" in second
    assert "from=" not in second


def test_what_a_security_key_must_do_is_handed_on() -> None:
    """sshd checks touch and PIN. Without an option it requires touch only."""
    (plain,), (lax,), (strict,) = (
        lines(f"{options}{SK}", key=SK) for options in ("", "no-touch-required ", "verify-required ")
    )
    assert [name for name, _ in split(plain)[0]] == ["command", "restrict"]
    assert [name for name, _ in split(lax)[0]] == ["command", "restrict", "no-touch-required"]
    assert [name for name, _ in split(strict)[0]] == ["command", "restrict", "verify-required"]


def test_a_key_spelled_with_other_padding_bits_is_the_same_key() -> None:
    """It is decoded as by the node's own listener."""
    odd = SK[:-2] + "p="  # SK ends in "o=": two of the last bits carry nothing
    assert parse_line(odd.encode(), 1).blob == blob_of(SK)
    (line,) = lines(f"{odd} alice", key=SK)
    assert line.endswith(SK)


@given(
    user=st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=("Cs",)), min_size=1).filter(
        str.strip
    )
)
def test_any_user_arrives_as_one_word(user: str) -> None:
    """Whatever a comment contains, the shell that sshd starts gets two options and no other command."""
    (entry,) = parse_authorized_keys(f"{KEY} {user}".encode()).entries
    (line,) = lines(f"{KEY} {user}")
    options, rest = split(line)
    assert "\n" not in line
    assert rest == KEY
    assert options[1:] == [("restrict", None)]
    assert shlex.split(options[0][1] or "") == [*SHELL, f"--user={entry.identity('').user}", "--access=write"]


ITEMS = ("192.0.2.1", "192.0.2.0/24", "192.0.*", "2001:db8::/32", "2001:DB8::1", "*.example.org", "host", "*")
ITEM = st.tuples(st.sampled_from(["", "!"]), st.sampled_from(ITEMS)).map("".join)
PATTERNS = st.lists(ITEM, min_size=1, max_size=4).map(",".join)
CLIENTS = ("192.0.2.1", "192.0.2.77", "192.0.3.1", "2001:db8::1", "2001:db9::1", "::ffff:192.0.2.1")


@given(PATTERNS)
def test_from_means_the_same_to_sshd(text: str) -> None:
    """The printed value allows the same clients as the original, here and in sshd."""
    original = parse_sources(text)
    handed = original.for_sshd()
    for client in CLIENTS:
        allowed = handed is not None and parse_sources(handed).allow(client)
        assert allowed == original.allow(client)
    assert handed is None or parse_options(f'from="{handed}"').sources is not None
