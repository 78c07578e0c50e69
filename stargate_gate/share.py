"""Where the files that are not Python live: hooks/, sshd/ and systemd/, in a wheel or in a checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shared_dir(name: str) -> Path:
    """The folder `name` ("hooks", "sshd" or "systemd").

    An installed wheel carries it below stargate_gate/share/; a checkout has it at the top.

    Raises:
        FileNotFoundError: neither is there, so the installation is broken.
    """
    for candidate in (_PACKAGE / "share" / name, _PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"no folder {name!r} beside or inside {_PACKAGE}: reinstall stargate-gate")
