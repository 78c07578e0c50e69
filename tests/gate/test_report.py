"""Git's answer to a push is cut right, whatever the client can and however the bytes arrive."""

import subprocess
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stargate_gate.gate.push.report import Report, ReportTooLongError
from stargate_gate.repos.pktline import PktLineError
from tests.gate.receive_pack import EMPTY_PACK, Repo, bare_repository, commands, packets, pkt, seen

BANDS = ["side-band-64k", "side-band", ""]  # git-receive-pack takes "side-band" for no side band at all
REPORTS = ["report-status", "report-status-v2"]
WHY = "not replicated in time; outcome unknown"
KEEPALIVE = b"0005\x01"

POST_RECEIVE = "#!/bin/sh\necho done with it >&2\n"
# Speaks proc-receive's protocol (githooks(5)): accepts each ref as another one, with options.
PROC_RECEIVE = f"""#!{sys.executable}
import sys
def read():
    length = int(sys.stdin.buffer.read(4), 16)
    return sys.stdin.buffer.read(length - 4) if length else None
def write(line):
    sys.stdout.buffer.write(b"%04x" % (len(line) + 4) + line if line else b"0000")
    sys.stdout.buffer.flush()
while read() is not None:
    pass
write(b"version=1\\n")
write(None)
refs = []
while (line := read()) is not None:
    refs.append(line.split()[2])
for ref in refs:
    for number in b"1", b"2":
        write(b"ok " + ref + b"\\n")
        write(b"option refname refs/changes/" + number + b"\\n")
        write(b"option forced-update\\n")
write(None)
"""


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """A repository to push to."""
    return bare_repository(tmp_path)


def cut(answer: bytes, at: Iterable[int] = ()) -> tuple[bytes, Report]:
    """Feed it in pieces: what passed, and the report that holds the rest."""
    report = Report()
    edges = [0, *sorted(at), len(answer)]
    passed = b"".join(report.feed(answer[start:end]) for start, end in pairwise(edges))
    return passed, report


def passed_and_released(answer: bytes) -> tuple[bytes, bytes]:
    """What goes at once, and later when all is well. Together they are what git wrote."""
    passed, report = cut(answer)
    released = b"".join(report.released())
    assert sorted(packets(passed) + packets(released)) == sorted(packets(answer))
    assert seen(passed).report == ()
    return passed, released


def rewritten(answer: bytes, reason: str = WHY) -> bytes:
    """What a client gets if the push is not acknowledged, with what was sent before."""
    passed, report = cut(answer)
    return passed + b"".join(report.rewritten(reason))


def refused(lines: Iterable[bytes]) -> tuple[bytes, ...]:
    """The report that it has to become."""
    return tuple(
        line.replace(b"ok ", b"ng ", 1).rstrip(b"\n") + f" {WHY}\n".encode()
        if line.startswith(b"ok ")
        else line
        for line in lines
        if not line.startswith(b"option ")
    )


@pytest.mark.parametrize("band", BANDS)
@pytest.mark.parametrize("status", REPORTS)
def test_each_kind_of_client_has_its_report_held_and_rewritten(repo: Repo, band: str, status: str) -> None:
    """Progress is returned at once, ok and ng are kept. Rewritten, each ok is an ng."""
    repo.hook("post-receive", POST_RECEIVE)
    repo.hook("update", '#!/bin/sh\n[ "$1" != refs/heads/no ]\n')
    answer = repo.answer(repo.create(f"{status} {band}", "refs/heads/a", "refs/heads/no", "refs/tags/t"))
    whole = seen(answer)
    assert whole.report == (b"unpack ok\n", b"ok refs/heads/a\n", b"ng refs/heads/no hook declined\n",
                            b"ok refs/tags/t\n")  # fmt: skip
    assert whole.ended
    passed, released = passed_and_released(answer)
    assert seen(released).report == whole.report
    assert seen(passed).progress == whole.progress
    assert (b"done with it" in whole.progress) == (band == "side-band-64k")
    after = seen(rewritten(answer))
    assert (after.report, after.progress, after.ended) == (refused(whole.report), whole.progress, True)
    assert max(map(len, packets(rewritten(answer)))) <= 996


@pytest.mark.parametrize("band", BANDS)
def test_deletions_need_no_pack(repo: Repo, band: str) -> None:
    """A request that ends with its commands is reported like any other."""
    repo.answer(repo.create("report-status", "refs/heads/old"))
    answer = repo.answer(repo.delete(f"report-status delete-refs {band}", "refs/heads/old"))
    assert seen(answer).report == (b"unpack ok\n", b"ok refs/heads/old\n")
    passed_and_released(answer)
    assert seen(rewritten(answer)).report == refused(seen(answer).report)


@pytest.mark.parametrize("band", BANDS)
def test_an_atomic_push(repo: Repo, band: str) -> None:
    """Git's own refusals are unchanged."""
    request = repo.create(f"report-status atomic {band}", "refs/heads/a", "refs/heads/main")
    answer = repo.answer(request)
    assert all(line.startswith(b"ng ") for line in seen(answer).report[1:])
    passed_and_released(answer)
    assert seen(rewritten(answer)) == seen(answer)


@pytest.mark.parametrize("band", BANDS)
def test_a_client_that_wants_no_report(repo: Repo, band: str) -> None:
    """There is no line about a ref; only git's last flush-pkt is kept."""
    repo.hook("post-receive", POST_RECEIVE)
    answer = repo.answer(repo.create(band, "refs/heads/a"))
    passed, released = passed_and_released(answer)
    banded = band == "side-band-64k"
    assert released == (b"0000" if banded else b"")
    assert rewritten(answer) == answer
    assert (b"done with it" in passed) == banded


@pytest.mark.parametrize("request_", [b"0000", b"00000009done\n", b""])
def test_a_push_without_commands(repo: Repo, request_: bytes) -> None:
    """Git writes nothing, and the report is empty."""
    assert repo.answer(request_) == b""
    assert rewritten(b"") == b""


@pytest.mark.parametrize("band", BANDS)
def test_a_pack_that_cannot_be_unpacked(repo: Repo, band: str) -> None:
    """The unpack line has the reason and is unchanged."""
    broken = EMPTY_PACK[:-1] + bytes([EMPTY_PACK[-1] ^ 1])
    request = commands(f"report-status {band}", [f"{'0' * 40} {repo.oid} refs/heads/a"]) + broken
    answer = repo.answer(request)
    assert seen(answer).report[0].startswith(b"unpack ")
    assert seen(answer).report[0] != b"unpack ok\n"
    passed_and_released(answer)
    assert seen(rewritten(answer)) == seen(answer)


@pytest.mark.parametrize("band", BANDS)
def test_push_options_and_shallow_lines_change_nothing_of_the_answer(repo: Repo, band: str) -> None:
    """They are in the request only."""
    capabilities = f"report-status push-options {band}"
    lines = pkt(f"shallow {repo.oid}") + commands(capabilities, [f"{'0' * 40} {repo.oid} refs/heads/a"])
    answer = repo.answer(lines, pkt("ci.skip"), b"0000", EMPTY_PACK)
    assert seen(answer).report == (b"unpack ok\n", b"ok refs/heads/a\n")
    passed_and_released(answer)
    assert seen(rewritten(answer)).report == refused(seen(answer).report)


def signed_request(repo: Repo, root: Path, band: str) -> bytes:
    """A push certificate made by ssh-keygen, as `git push --signed` sends it."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", root / "signer"], check=True)
    cert = (
        "certificate version 0.1\npusher test <test@example.org> 1700000000 +0000\n"
        f"pushee bare\nnonce \n\n{'0' * 40} {repo.oid} refs/heads/signed\n"
    )
    (root / "cert").write_text(cert)
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-n", "git", "-f", root / "signer", root / "cert"],
                   check=True, capture_output=True)  # fmt: skip
    lines = (cert + (root / "cert.sig").read_text()).splitlines(keepends=True)
    return (
        pkt(f"push-cert\0 report-status {band}")
        + b"".join(map(pkt, lines))
        + pkt("push-cert-end\n")
        + b"0000"
    )


@pytest.mark.parametrize("band", BANDS)
def test_a_signed_push(repo: Repo, tmp_path: Path, band: str) -> None:
    """The commands are inside a certificate; the answer is the usual one."""
    answer = repo.answer(signed_request(repo, tmp_path, band), EMPTY_PACK)
    assert seen(answer).report == (b"unpack ok\n", b"ok refs/heads/signed\n")
    passed_and_released(answer)
    assert seen(rewritten(answer)).report == refused(seen(answer).report)


@pytest.mark.parametrize("band", BANDS)
def test_option_lines_go_with_their_ok(repo: Repo, band: str) -> None:
    """For a ref that a hook made into two there are two ok with options. They become one ng."""
    subprocess.run(["git", "config", "receive.procReceiveRefs", "refs/for"], cwd=repo.path, check=True)
    repo.hook("proc-receive", PROC_RECEIVE)
    answer = repo.answer(repo.create(f"report-status-v2 {band}", "refs/for/main/x", "refs/heads/a"))
    whole = seen(answer).report
    assert whole.count(b"ok refs/for/main/x\n") == 2
    assert b"option refname refs/changes/2\n" in whole
    passed_and_released(answer)
    assert seen(rewritten(answer)).report == (
        b"unpack ok\n",
        f"ng refs/for/main/x {WHY}\n".encode(),
        f"ng refs/heads/a {WHY}\n".encode(),
    )


@pytest.mark.parametrize("band", BANDS)
def test_reports_of_thousands_of_refs(repo: Repo, band: str) -> None:
    """Its lines are split over many packets. Each ref is there and refused."""
    refs = [f"refs/heads/some/longer/name/{number:05}" for number in range(4000)]
    answer = repo.answer(repo.create(f"report-status atomic {band}", *refs))
    passed_and_released(answer)
    after = seen(rewritten(answer))
    assert after.report == refused(seen(answer).report)
    assert len(after.report) == 4001


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Answers of real git to split anywhere; one is cut again, as for the old side-band."""
    repo = bare_repository(tmp_path_factory.mktemp("recorded"))
    repo.hook("post-receive", POST_RECEIVE)
    answers = []
    for number, band in enumerate(BANDS):
        refs = [f"refs/heads/b{number}-{index}" for index in range(40)]
        answer = repo.answer(repo.create(f"report-status {band}", *refs))
        answers.append(answer)
        if band == "side-band-64k":
            inner = b"".join(packet[1:] for packet in packets(answer) if packet[:1] == b"\1")
            small = (pkt(b"\1" + inner[at : at + 995]) for at in range(0, len(inner), 995))
            answers += [KEEPALIVE + answer, b"".join(small) + b"0000"]
    return answers


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
def test_it_does_not_matter_how_the_bytes_arrive(recorded: list[bytes], data: st.DataObject) -> None:
    """Split at any bytes: the same is returned, kept and rewritten."""
    answer = data.draw(st.sampled_from(recorded))
    at = data.draw(st.lists(st.integers(0, len(answer)), max_size=30))
    passed, report = cut(answer)
    split_passed, split_report = cut(answer, at)
    assert split_passed == passed
    finish = data.draw(st.sampled_from(["released", "rewritten"]))
    if finish == "released":
        assert list(split_report.released()) == list(report.released())
    else:
        assert list(split_report.rewritten(WHY)) == list(report.rewritten(WHY))


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
def test_an_answer_that_breaks_off_is_never_an_ok(recorded: list[bytes], data: st.DataObject) -> None:
    """If git dies at any byte, the released report is what it wrote, and the rewritten one has no ok."""
    answer = data.draw(st.sampled_from(recorded))
    answer = answer[: data.draw(st.integers(0, len(answer)))]
    passed, report = cut(answer)
    assert b"ok refs" not in passed
    rest = list(report.released())
    assert sum(map(len, rest)) + len(passed) == len(answer)
    lines = b"".join(packet.lstrip(b"\1\2") for packet in packets(rewritten(answer)))
    assert b"ok refs" not in lines


def test_one_byte_at_a_time(recorded: list[bytes]) -> None:
    """Byte by byte."""
    for answer in recorded:
        passed, report = cut(answer, range(1, len(answer)))
        assert (passed, list(report.released())) == (cut(answer)[0], list(cut(answer)[1].released()))


def test_progress_and_keepalives_pass_at_once() -> None:
    """Also after the report, while post-receive runs, but not after git's last flush-pkt."""
    report = Report()
    assert report.feed(KEEPALIVE) == KEEPALIVE
    assert report.feed(pkt(b"\1" + pkt("unpack ok\n") + b"0000")) == b""
    assert report.feed(pkt(b"\2Hello") + KEEPALIVE + pkt(b"\3Ouch")) == pkt(b"\2Hello") + KEEPALIVE + pkt(
        b"\3Ouch"
    )
    assert report.feed(b"0000" + pkt(b"\2late")) == b""


def test_a_report_is_given_out_once() -> None:
    """If a release was cancelled in the middle, a rewritten report is empty."""
    report = Report()
    report.feed(pkt("unpack ok\n") + pkt("ok refs/heads/a\n") + b"0000")
    assert next(report.released()) == pkt("unpack ok\n") + pkt("ok refs/heads/a\n") + b"0000"
    assert list(report.rewritten(WHY)) == []


@pytest.mark.parametrize("first", [b"0000", pkt("unpack ok\n"), pkt(b"\1" + pkt("unpack ok\n")) + b"0000"])
def test_what_git_never_mixes_is_never_an_ok(first: bytes) -> None:
    """A report after the end, or on a band after one without a band, is not in the rewritten report."""
    mixed = first + pkt(b"\1" + pkt("ok refs/heads/a\n") + b"0000") + b"0000"
    assert b"ok refs" not in rewritten(mixed)


def test_what_is_no_report_passes() -> None:
    """An ERR packet, as git may write it before any report."""
    report = Report()
    assert report.feed(pkt("ERR no")) == pkt("ERR no")
    assert len(report._held) == 0


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.1", b"ok refs/heads/main\n"])
def test_what_are_no_pkt_lines_never_passes(junk: bytes) -> None:
    """Bytes that are not pkt-lines are an error."""
    with pytest.raises(PktLineError):
        Report().feed(junk)


def test_a_report_is_bounded() -> None:
    """A longer report is an error, and its memory is freed."""
    report = Report(max_bytes=1000)
    lines = b"".join(pkt(f"ok refs/heads/{number}\n") for number in range(100))
    assert report.feed(pkt("unpack ok\n") + lines[:900]) == b""
    with pytest.raises(ReportTooLongError):
        report.feed(lines[900:])
    assert len(report._held) == 0
    assert list(report.rewritten(WHY)) == []


@pytest.mark.parametrize("reason", ["two\nlines", "nul\0 and \x1b[31mred", "x" * 70000])
def test_a_reason_stays_a_line(reason: str) -> None:
    """Any reason becomes one line, no longer than a pkt-line may be."""
    (line,) = packets(rewritten(pkt("unpack ok\n") + pkt("ok refs/heads/" + "n" * 65000 + "\n"), reason))[1:]
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert not any(byte < 32 for byte in line[:-1])
    assert len(line) <= 65516
