"""authorized_keys: one broken line costs that line, and every restriction is honoured or refused."""

import base64
import math
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stargate_gate.access.authorized_keys import MAX_PROBLEMS, AuthorizedKeys, parse_authorized_keys
from stargate_gate.access.key_options import parse_expiry
from tests.support.key_lines import ed25519, rsa, text

LIMIT_S = 30.0
NOW = datetime(2030, 6, 1, 12, tzinfo=UTC)


def parse(*lines: str) -> AuthorizedKeys:
    """A file of these lines."""
    return parse_authorized_keys("\n".join(lines).encode())


def blob_of(line: str) -> bytes:
    """The key in a line without options."""
    return base64.b64decode(line.split()[1])


@pytest.mark.parametrize(
    ("options", "user", "access"),
    [
        ("", "alice@home", "write"),
        ('environment="STARGATE_USER=bob"', "bob", "write"),
        ('environment="STARGATE_USER=bob",environment="STARGATE_ACCESS=read"', "bob", "read"),
        ('restrict,environment="STARGATE_ACCESS=admin"', "alice@home", "admin"),
        ('Restrict,PTY,No-X11-Forwarding,ENVIRONMENT="STARGATE_ACCESS=read"', "alice@home", "read"),
        ("no-agent-forwarding,no-port-forwarding,no-pty,no-user-rc,no-X11-forwarding", "alice@home", "write"),
        ('permitopen="host:22",tunnel="0",permitlisten="8080"', "alice@home", "write"),
        ('environment="LANG=C"', "alice@home", "write"),
        (r'environment="STARGATE_USER=say \"hi, you\" \o/"', r'say "hi, you" \o/', "write"),
        ('environment="STARGATE_USER=a b=c"', "a b=c", "write"),
    ],
)
def test_options_give_user_and_access(options: str, user: str, access: str) -> None:
    """STARGATE_USER and STARGATE_ACCESS of the entry decide, else the comment and write access."""
    keys = parse(f"{options} {ed25519()} alice@home".strip())
    assert keys.problems == ()
    identity = keys.entries[0].identity("192.0.2.1")
    assert (identity.user, identity.access, identity.source) == (user, access, "192.0.2.1")


def test_users_whose_last_key_ends_soon_are_known() -> None:
    """The one that ends last counts; who has a key without an end is not named. A file may hold neither."""
    keys = parse(
        f'expiry-time="20300602Z" {ed25519()} alice\n'
        f'expiry-time="20300610Z" {ed25519()} alice\n'
        f'expiry-time="20300603Z" {ed25519()} bob\n'
        f"{ed25519()} bob\n"
        f"{ed25519()} erin\n"
        f'expiry-time="20300603Z" {ed25519()} erin\n'
        f'expiry-time="20300601Z",environment="STARGATE_USER=carol" {ed25519()} work\n'
    )
    assert [(one.user, one.line) for one in keys.expiring(math.inf)] == [("carol", 7), ("alice", 2)]
    june_10 = datetime(2030, 6, 10, tzinfo=UTC).timestamp()
    assert [one.user for one in keys.expiring(june_10)] == ["carol"]
    assert [one.at for one in keys.expiring(june_10 + 1)][1:] == [june_10]
    assert parse(f"{ed25519()} dave").expiring(math.inf) == ()


def test_without_a_name_the_user_is_the_fingerprint(tmp_path: Path) -> None:
    """The fingerprint is the one that ssh-keygen prints."""
    line = ed25519()
    (tmp_path / "key.pub").write_text(line + "\n")
    printed = subprocess.run(
        ["ssh-keygen", "-l", "-f", tmp_path / "key.pub"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout
    identity = parse(line).entries[0].identity("::1")
    assert identity.user == identity.fingerprint == printed.split()[1]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f'command="rsync" {ed25519()}', "command="),
        (f"cert-authority {ed25519()}", "cert-authority"),
        (f'principals="a" {ed25519()}', "principals"),
        (f"no-cloning {ed25519()}", "'no-cloning' is not known"),
        (f'only-on="monday" {ed25519()}', "only-on= is not known"),
        (f'environment="STARGATE_ACCESS=root" {ed25519()}', "STARGATE_ACCESS='root'"),
        (f'environment="STARGATE_ACCESS=Read" {ed25519()}', "STARGATE_ACCESS='Read'"),
        (f'environment="STARGATE_ACESS=read" {ed25519()}', "STARGATE_ACESS is not known"),
        (f'environment="STARGATE_ACCESS=" {ed25519()}', "is empty"),
        (
            f'environment="STARGATE_ACCESS=read",environment="STARGATE_ACCESS=admin" {ed25519()}',
            "set twice",
        ),
        (f'environment="nothing" {ed25519()}', "not NAME=value"),
        (f"environment=STARGATE_ACCESS=read {ed25519()}", "not in double quotes"),
        (f'from="10.0.0.0/33" {ed25519()}', "10.0.0.0/33"),
        (f'from="" {ed25519()}', "empty item"),
        (f'from="10.0.0.1",from="10.0.0.2" {ed25519()}', "twice"),
        (f"from {ed25519()}", "'from' is not known, or lacks its value"),
        (f'expiry-time="soon" {ed25519()}', "expiry-time='soon'"),
        (f'expiry-time="20301340" {ed25519()}', "no time that exists"),
        (f'expiry-time="٢٠٣٠٠١٠١" {ed25519()}', "expiry-time="),
        (f'environment="STARGATE_USER=x {ed25519()}', "quote is not closed"),
        (f"restrict,,pty {ed25519()}", "cannot be read"),
        (f"restrict, {ed25519()}", "cannot be read"),
        (f'from="10.0.0.1"pty {ed25519()}', "cannot be read"),
        ("ssh-dss AAAAB3NzaC1kc3MAAACB", "no key of a known type"),
        ("restrict", "no key of a known type"),
        ("ssh-ed25519", "damaged"),
        ("ssh-ed25519 !!!!", "no base64"),
        (ed25519()[:-8], "damaged"),
        ("ssh-rsa " + ed25519().split()[1], "does not hold a key of type ssh-rsa"),
        (rsa(1024), "too weak"),
        ("ssh-ed25519-cert-v01@openssh.com AAAA", "no key of a known type"),
        ("x" * 20_000, "longer than"),
        ("\x01\x1b[2J", "no key of a known type"),
    ],
)
def test_a_bad_line_costs_only_itself_and_is_reported_by_number(line: str, reason: str) -> None:
    """The lines around a bad one count. The problem has its number and the reason, and is printable."""
    keys = parse("# keys", ed25519(7) + " before", line, ed25519(9) + " after")
    assert [entry.comment for entry in keys.entries] == ["before", "after"]
    (problem,) = keys.problems
    assert problem.startswith("line 3: ")
    assert reason in problem
    assert problem.isprintable()


def test_every_key_type_that_openssh_makes_is_read(tmp_path: Path) -> None:
    """ed25519, ECDSA on three curves and RSA from ssh-keygen, and security keys."""
    lines = []
    for kind, bits in [
        ("ed25519", "256"),
        ("ecdsa", "256"),
        ("ecdsa", "384"),
        ("ecdsa", "521"),
        ("rsa", "2048"),
    ]:
        path = tmp_path / f"{kind}{bits}"
        subprocess.run(
            ["ssh-keygen", "-q", "-t", kind, "-b", bits, "-N", "", "-f", path], check=True, timeout=60
        )
        lines.append(path.with_suffix(".pub").read_text().strip())
    sk_ed25519 = text(b"sk-ssh-ed25519@openssh.com") + text(b"k" * 32) + text(b"ssh:")
    point = text(b"\x04" + b"k" * 64)
    sk_ecdsa = text(b"sk-ecdsa-sha2-nistp256@openssh.com") + text(b"nistp256") + point + text(b"ssh:")
    lines += [
        f"no-touch-required sk-ssh-ed25519@openssh.com {base64.b64encode(sk_ed25519).decode()} token",
        f"verify-required sk-ecdsa-sha2-nistp256@openssh.com {base64.b64encode(sk_ecdsa).decode()}",
    ]
    keys = parse(*lines)
    assert keys.problems == ()
    assert len(keys.entries) == 7
    assert [entry.options.touch_required for entry in keys.entries[-2:]] == [False, True]
    assert [entry.options.verify_required for entry in keys.entries[-2:]] == [False, True]


def test_an_empty_file_is_fine() -> None:
    """Nobody may log in, and there is no problem."""
    for content in (b"", b"\n\n", b"# nobody yet\n", b"\r\n"):
        assert parse_authorized_keys(content) == AuthorizedKeys()


def test_bytes_of_any_kind_do_not_raise() -> None:
    """Garbage is reported line by line."""
    garbage = b"x" + os.urandom(4096).replace(b"\n", b"")  # a "#" in front would make it a comment
    garbage += b"\n" + b"\xff\xfe\n" + ed25519().encode() + b" \xff\r\n"
    keys = parse_authorized_keys(garbage)
    assert len(keys.entries) == 1
    assert keys.entries[0].identity("").user.isprintable()
    assert len(keys.problems) == 2


def test_tabs_and_carriage_returns_are_blanks() -> None:
    """Files from other systems can be read."""
    keys = parse(f"restrict\t{ed25519().replace(' ', chr(9))}\talice and bob\r")
    assert keys.problems == ()
    assert keys.entries[0].comment == "alice and bob"


@pytest.mark.parametrize("comment", ["a\x1b[31mred", "a\x07", "a\u202eb", "x" * 500])
def test_user_names_are_safe_in_logs_and_terminals(comment: str) -> None:
    """Printable, and with a bounded length."""
    user = parse(f"{ed25519()} {comment}").entries[0].identity("").user
    assert user.isprintable()
    assert len(user) <= 100


def test_of_two_lines_with_one_key_the_first_wins() -> None:
    """As in sshd. The second line is reported, since it never counts."""
    keys = parse(
        f'environment="STARGATE_ACCESS=read" {ed25519()} one',
        f'environment="STARGATE_ACCESS=admin" {ed25519()} two',
    )
    entry = keys.find(blob_of(ed25519()), "192.0.2.1", NOW)
    assert entry is not None
    assert entry.options.access == "read"
    assert keys.problems == ("line 2: the same key stands in line 1, which wins",)


def test_a_line_that_refuses_the_source_leaves_the_key_to_a_later_line() -> None:
    """As in sshd: a key may have more rights at one address than at others."""
    keys = parse(
        f'from="192.0.2.0/24",environment="STARGATE_ACCESS=admin" {ed25519()}',
        f'environment="STARGATE_ACCESS=read" {ed25519()}',
    )
    assert keys.problems == ()
    blob = blob_of(ed25519())
    found = [keys.find(blob, source, NOW) for source in ("192.0.2.9", "198.51.100.1")]
    assert [entry.options.access for entry in found if entry] == ["admin", "read"]


@pytest.mark.parametrize(
    ("pattern", "source", "allowed"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.10", False),
        ("192.0.2.0/24", "192.0.2.77", True),
        ("192.0.2.0/24", "192.0.3.1", False),
        ("192.0.2.0/24", "::ffff:192.0.2.77", True),
        ("192.0.2.*", "192.0.2.77", True),
        ("192.0.2.?", "192.0.2.77", False),
        ("192.0.2.0/24,!192.0.2.66", "192.0.2.66", False),
        ("!192.0.2.66,192.0.2.0/24", "192.0.2.66", False),
        ("!192.0.2.66,*", "192.0.2.67", True),
        ("!192.0.2.66", "192.0.2.67", False),
        ("2001:db8::/32", "2001:db8::1", True),
        ("2001:DB8::1", "2001:db8:0::1", True),
        ("2001:db8::/32,10.0.0.0/8", "10.1.2.3", True),
        ("fe80::/10", "fe80::1%eth0", True),
        ("*.example.org", "192.0.2.1", False),
        ("*", "unknown", False),
    ],
)
def test_from_restricts_the_source(pattern: str, source: str, allowed: bool) -> None:  # noqa: FBT001
    """Addresses, networks, wildcards and exclusions, as in sshd; names are never looked up."""
    keys = parse(f'from="{pattern}" {ed25519()}')
    assert keys.problems == ()
    assert (keys.find(blob_of(ed25519()), source, NOW) is not None) is allowed


@pytest.mark.parametrize(
    ("value", "then"),
    [
        ("20300601Z", datetime(2030, 6, 1, tzinfo=UTC)),
        ("203006011359Z", datetime(2030, 6, 1, 13, 59, tzinfo=UTC)),
        ("20300601135958Z", datetime(2030, 6, 1, 13, 59, 58, tzinfo=UTC)),
        ("203006011359", datetime(2030, 6, 1, 13, 59).astimezone()),
    ],
)
def test_expiry_time_ends_a_key(value: str, then: datetime) -> None:
    """Exact to the second. Local time unless a Z follows. The earliest of several counts."""
    assert parse_expiry(value) == then
    keys = parse(f'expiry-time="{value}",expiry-time="20990101Z" {ed25519()}')
    blob = blob_of(ed25519())
    assert keys.find(blob, "", then) is not None
    assert keys.find(blob, "", then + timedelta(seconds=1)) is None


def test_many_broken_lines_are_counted_and_not_listed() -> None:
    """Fifty are described, and the good line among them counts."""
    keys = parse(*["x y"] * 10_000, ed25519())
    assert len(keys.entries) == 1
    assert len(keys.problems) == MAX_PROBLEMS + 1
    assert keys.problems[-1] == f"{10_000 - MAX_PROBLEMS} more lines have problems"
    assert keys.lines == 10_001


SECRET = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW"
RFC4716 = f"""---- BEGIN SSH2 PUBLIC KEY ----
Comment: "someone"
{SECRET}
---- END SSH2 PUBLIC KEY ----"""
PPK = f"""PuTTY-User-Key-File-3: ssh-ed25519
Encryption: none
Comment: someone
Public-Lines: 1
{SECRET}
Private-Lines: 1
{SECRET}
Private-MAC: {SECRET[:20]}"""


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (
            f"-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRET}\n-----END OPENSSH PRIVATE KEY-----",
            "a private key",
        ),
        (f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}", "a private key"),
        (RFC4716, "ssh-keygen -i -f"),
        (PPK, ".ppk"),
        (f"-----BEGIN PUBLIC KEY-----\n{SECRET}\n-----END PUBLIC KEY-----", "PKCS8"),
        (f"-----BEGIN CERTIFICATE-----\n{SECRET}\n-----END CERTIFICATE-----", "take it out"),
        (SECRET, "no key of a known type"),
        (f"{SECRET} {SECRET}", "no key of a known type"),
        (f"ssh-ed25519 {SECRET}", "damaged"),
        (f"{SECRET},x ssh-ed25519 {SECRET[:-3]}", "damaged"),
        (f'environment="{SECRET}" {SECRET}', "no key of a known type"),
        (f'environment="{SECRET} ssh-ed25519', "quote is not closed"),
        ("ssh-ed25519 AAAA… alice", "damaged"),
    ],
)
def test_what_is_no_line_is_named_and_never_shown(block: str, words: str) -> None:
    """No part of a private key gets into status pages and logs."""
    keys = parse(ed25519(1) + " before", *block.split("\n"), ed25519(2) + " after")
    assert [entry.comment for entry in keys.entries] == ["before", "after"]
    (problem,) = keys.problems
    assert problem.startswith("line 2: ")
    assert words in problem
    told = "".join(keys.problems)
    assert not any(SECRET[at : at + 8] in told for at in range(len(SECRET) - 8))


def test_a_mark_in_front_of_the_text_costs_no_key() -> None:
    """Windows editors write a byte order mark before UTF-8."""
    keys = parse_authorized_keys(b"\xef\xbb\xbf" + ed25519().encode() + b" alice\r\n")
    assert keys.problems == ()
    assert keys.entries[0].comment == "alice"


STARS = """
import sys
from stargate_gate.access.sources import parse_sources
print(parse_sources(sys.argv[1]).allow("2001:db8:1111:2222:3333:4444:5555:6666"))
"""


@pytest.mark.parametrize(
    ("pattern", "allowed"),
    [("*" * 60 + "z", False), ("*:" * 30 + "z", False), ("?*" * 30 + "z", False), ("*" * 60 + "6", True)],
)
def test_stars_cost_no_time(pattern: str, allowed: bool) -> None:  # noqa: FBT001
    """Attack: from="********z" took seconds of the loop for each offer of a key that anybody may offer."""
    done = subprocess.run(
        [sys.executable, "-c", STARS, pattern], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == f"{allowed}\n"


def test_two_files_that_let_in_the_same_have_one_digest() -> None:
    """Order, comments of named users, blank and broken lines make no difference. Rights make one."""
    one = parse(
        f'environment="STARGATE_USER=bob" {ed25519(1)} bob@work', "# note", f"{ed25519(2)} eve", "broken"
    )
    other = parse(f"{ed25519(2)} eve", f'environment="STARGATE_USER=bob" {ed25519(1)} bob@home')
    assert one.digest == other.digest
    assert one.digest.startswith("2 keys, digest ")
    assert parse(f"{ed25519(2)} eve").digest != one.digest
    for changed in (
        f'environment="STARGATE_USER=bob",environment="STARGATE_ACCESS=admin" {ed25519(1)}',
        f'environment="STARGATE_USER=bob",expiry-time="20200101" {ed25519(1)}',
        f'environment="STARGATE_USER=bob",from="10.0.0.0/8" {ed25519(1)}',
        f"{ed25519(1)} bob",
    ):
        assert parse(f"{ed25519(2)} eve", changed).digest != one.digest
    assert parse().digest == "0 keys"
