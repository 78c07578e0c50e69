"""Names that not every node could hold, and too many push options: refused before git does anything."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stargate_gate.gate.push.commands import (
    MAX_NAMED_BYTES,
    MAX_OPTIONS,
    MAX_OPTIONS_BYTES,
    PushCommands,
)
from stargate_gate.repos.names import MAX_REF_BYTES, MAX_REF_COMPONENT_BYTES
from tests.gate.conftest import Node, commit, git, work_tree
from tests.gate.receive_pack import EMPTY_PACK, ZERO, packets, pkt, seen

OID = "1" * 40
CAPABILITIES = "report-status push-options object-format=sha1"
COMPONENT = "c" * MAX_REF_COMPONENT_BYTES
LONGEST = ("refs/heads/" + "/".join([COMPONENT] * 4))[:MAX_REF_BYTES]
TOO_LONG = LONGEST + "x"
TOO_WIDE = f"refs/heads/{COMPONENT}x"


def request(*refs: str, capabilities: str = CAPABILITIES, options: list[bytes] | None = None) -> bytes:
    """What a client sends to make these refs, with an empty pack."""
    words = [f"{ZERO} {OID} {ref}" for ref in refs]
    lines = [pkt(f"{words[0]}\0{capabilities}"), *map(pkt, words[1:]), b"0000"]
    if "push-options" in capabilities:
        lines += [*map(pkt, options or []), b"0000"]
    return b"".join([*lines, EMPTY_PACK])


def certificate(*refs: str, packet_bytes: int = 1000) -> bytes:
    """The same as a signed push; git reads commands in it whatever it thinks of the signature."""
    text = "certificate version 0.1\npusher me\nnonce x\n\n"
    text += "".join(f"{ZERO} {OID} {ref}\n" for ref in refs) + "-----BEGIN PGP SIGNATURE-----\n"
    cut = [text[start : start + packet_bytes] for start in range(0, len(text), packet_bytes)]
    lines = [pkt(f"push-cert\0{CAPABILITIES}"), *map(pkt, cut), pkt("push-cert-end\n"), b"0000", b"0000"]
    return b"".join([*lines, EMPTY_PACK])


def read(data: bytes, size: int = 1 << 16) -> PushCommands:
    """Feed it as a pump would."""
    commands = PushCommands()
    for start in range(0, len(data), size):
        if not (commands.done or commands.refused):
            commands.feed(data[start : start + size])
    return commands


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (request("refs/heads/main", LONGEST, f"refs/heads/{COMPONENT}"), None),
        (request("refs/heads/main", options=[b"x" * 65_000]), None),
        (request("refs/heads/main", options=[b"x"] * MAX_OPTIONS), None),
        (certificate("refs/heads/main"), None),
        (b"0000", None),
        (pkt(f"shallow {OID}") + request(LONGEST), None),
        (request("refs/heads/main", TOO_LONG, "refs/heads/z"), f"has {MAX_REF_BYTES + 1} bytes"),
        (request(TOO_WIDE), f"{MAX_REF_COMPONENT_BYTES} are allowed"),
        (pkt(f"shallow {OID}") + request(TOO_WIDE), f"{MAX_REF_COMPONENT_BYTES} are allowed"),
        (request(TOO_WIDE).replace(OID.encode(), b"F" * 40), f"{MAX_REF_COMPONENT_BYTES} are allowed"),
        (certificate("refs/heads/main", TOO_LONG), f"has {MAX_REF_BYTES + 1} bytes"),
        (certificate(TOO_WIDE, packet_bytes=3), f"{MAX_REF_COMPONENT_BYTES} are allowed"),
        (request("refs/heads/main", options=[b"x"] * (MAX_OPTIONS + 1)), "push options"),
        (request("refs/heads/main", options=[b"x" * 60_000] * 9), f"{MAX_OPTIONS_BYTES >> 10} KiB"),
        (request("refs/heads/main", options=[b"a\0b"]), "zero byte"),
        (b"fff1" + b"x" * 100, "not in git's protocol"),
        (b"0003", "not in git's protocol"),
    ],
)
def test_what_no_node_could_do_is_found_however_it_arrives(sent: bytes, words: str | None, size: int) -> None:
    """In commands, certificates and options. Valid pushes pass, and the pack is not read."""
    commands = read(sent, size)
    assert commands.refused == (words is not None)
    assert commands.done or commands.refused
    assert (commands.problem is None) if words is None else (words in (commands.problem or ""))


@given(st.binary(max_size=300), st.integers(1, 40))
def test_whatever_is_sent_is_read_the_same_in_pieces(data: bytes, size: int) -> None:
    """No exception, and no state that depends on where the stream was cut."""
    sent = request("refs/heads/a")[:-30] + data
    whole, cut = read(sent), read(sent, size)
    assert (whole.problem, whole.done, whole.refused) == (cut.problem, cut.done, cut.refused)


@pytest.mark.parametrize(
    "capabilities", ["report-status", "report-status-v2 side-band-64k", "side-band-64k", ""]
)
def test_the_answer_is_what_the_client_asked_for(capabilities: str) -> None:
    """A report with each ref, in a side band or not; none if none is wanted."""
    commands = read(request("refs/heads/main", TOO_WIDE, capabilities=capabilities))
    answer = b"".join(commands.answer())
    if "report-status" not in capabilities:
        assert answer == b""
        return
    assert packets(answer)[-1] == b""
    report = seen(answer).report
    assert report[0] == b"unpack ok\n"
    assert [line.split()[1].decode() for line in report[1:]] == ["refs/heads/main", TOO_WIDE]
    assert all(line.startswith(b"ng ") and b"250 are allowed" in line for line in report[1:])


@pytest.mark.parametrize("ref", ["a", f"refs/heads/{'x' * 240}"])
def test_names_that_never_end_are_not_kept(ref: str) -> None:
    """A client that sends commands without end gets an answer. The memory for it is bounded."""
    commands = PushCommands()
    commands.feed(pkt(f"{ZERO} {OID} {TOO_WIDE}\0{CAPABILITIES}"))
    line = pkt(f"{ZERO} {OID} {ref}")
    for _ in range(20_000):
        if commands.refused:
            break
        commands.feed(line)
    assert commands.refused
    assert len(b"".join(commands.answer())) < 2 * MAX_NAMED_BYTES


@pytest.fixture
async def tree(node: Node) -> Path:
    """A work tree whose main the node has."""
    tree = work_tree(node.root / "tree")
    pushed = await node.git("push", "-q", node.url(), "main", cwd=tree)
    assert pushed.status == 0, pushed
    return tree


def folders(node: Node) -> set[Path]:
    """Below refs/."""
    return {path for path in (node.path() / "refs").rglob("*") if path.is_dir()}


@pytest.mark.parametrize("protocol", [0, 1, 2])
@pytest.mark.parametrize("ref", [TOO_LONG, TOO_WIDE], ids=["too long", "too wide"])
async def test_a_ref_that_not_every_node_could_hold_is_refused_by_name(
    node: Node, tree: Path, ref: str, protocol: int
) -> None:
    """Git's client shows the limit for each ref. No ref and no folder is left."""
    commit(tree, "more")
    refs, before = node.refs(), folders(node)
    push = await node.git("push", node.url(), "main", f"HEAD:{ref}", cwd=tree, protocol=protocol)
    assert push.status == 1
    assert push.stderr.count("[remote rejected]") == 2
    assert "are allowed" in push.stderr or "may have" in push.stderr
    assert "push refused: ref refs/heads/cc" in push.stderr
    assert (node.refs(), folders(node)) == (refs, before)
    assert node.debris() == []
    again = await node.git("push", node.url(), "main", cwd=tree)
    assert again.status == 0, again


async def test_the_longest_names_are_taken(node: Node, tree: Path) -> None:
    """There is room for git's lock files beside them, and they can be deleted."""
    names = [LONGEST, f"refs/tags/{COMPONENT}"]
    push = await node.git("push", node.url(), *(f"HEAD:{name}" for name in names), cwd=tree)
    assert push.status == 0, push
    assert set(names) <= set(node.refs())
    git("pack-refs", "--all", cwd=node.path())
    push = await node.git("push", node.url(), *(f":{name}" for name in names), cwd=tree)
    assert push.status == 0, push
    assert list(node.refs()) == ["refs/heads/main"]


async def test_a_refused_push_is_not_read_to_its_end(node: Node, tree: Path) -> None:
    """The client does not have to send its pack, and gets the reason."""
    (tree / "large").write_bytes(os.urandom(40 << 20))
    commit(tree, "large.txt")
    push = await node.git("push", node.url(), f"HEAD:{TOO_LONG}", cwd=tree)
    assert push.status == 1
    assert "push refused: ref refs/heads/cc" in push.stderr
    assert node.debris() == []
    assert list(node.refs()) == ["refs/heads/main"]


@pytest.mark.parametrize(
    "sent",
    [certificate(TOO_LONG), request(TOO_LONG, capabilities="report-status side-band-64k"), request(TOO_WIDE)],
    ids=["certificate", "side band", "plain"],
)
async def test_a_client_of_any_kind_is_told(node: Node, tree: Path, sent: bytes) -> None:
    """Exit status 64, the reason on stderr, and in the report."""
    before = folders(node)
    done = await node.ssh("git-receive-pack", "'org/app'", stdin=sent)
    assert done.status == 64
    assert "nothing was changed" in done.stderr
    assert "ng refs/heads/cc" in done.stdout
    assert folders(node) == before


async def test_too_many_push_options_are_refused(node: Node, tree: Path) -> None:
    """In one line, and not by the system's limit when the hook starts. A thousand options are accepted."""
    new = commit(tree, "more")
    options = [f"--push-option={number}" for number in range(MAX_OPTIONS)]
    push = await node.git("push", *options, "-o", "one more", node.url(), "main", cwd=tree)
    assert push.status == 1
    assert f"more than {MAX_OPTIONS} push options" in push.stderr
    assert node.refs()["refs/heads/main"] != new
    push = await node.git("push", *options, node.url(), "main", cwd=tree)
    assert push.status == 0, push
    assert node.refs()["refs/heads/main"] == new
    push = await node.git("push", *["-o", "x" * 60_000] * 9, node.url(), "main:other", cwd=tree)
    assert push.status == 1
    assert "KiB together" in push.stderr
