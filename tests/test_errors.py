"""What the errors say."""

import pytest

from stargate_gate.errors import GitFailedError


@pytest.mark.parametrize(
    ("stderr", "said"),
    [
        (b"", "no message"),
        (b"fatal: bad object x\n", "fatal: bad object x"),
        (b"warning: odd\nlast words\n", "last words"),
        (
            b"remote: hello\nfatal: write error: No space left on device\nfatal: invalid index-pack output\n",
            "fatal: write error: No space left on device; fatal: invalid index-pack output",
        ),
    ],
)
def test_a_failed_git_tells_the_cause_and_not_only_what_came_of_it(stderr: bytes, said: str) -> None:
    """One line for `status`: git complains of the cause first and of the consequence last."""
    assert (
        GitFailedError(["git", "-c", "a=b", "fetch"], 128, stderr).message
        == f"git fetch failed with 128: {said}"
    )
