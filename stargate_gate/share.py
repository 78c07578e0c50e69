"""Finds the files that are not Python, such as docs/ and hooks/, in an installed wheel or in a checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shared_dir(name: str) -> Path:
    """The folder `name` ("hooks", "docs", "sshd" or "systemd").

    An installed wheel carries it below stargate_gate/share/; a checkout has it at the top.

    Raises:
        FileNotFoundError: it is in neither place, so the installation is broken.
    """
    for candidate in (_PACKAGE / "share" / name, _PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"no folder {name!r} beside or inside {_PACKAGE}: reinstall stargate-gate")


def documents() -> str:
    """The folder of the runbook and the sample files, for a message; "not installed" if it is missing."""
    try:
        return str(shared_dir("docs"))
    except FileNotFoundError:
        return "not installed"
