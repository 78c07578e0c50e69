"""Run a command with another git than the one that is installed.

As `python -m tests.support.other_git GIT COMMAND…`. GIT is the absolute path of the program, or of a folder
with `git` or `bin/git` in it. Whatever the command starts finds that git first; nothing else changes.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

USAGE = 64


def program(where: Path) -> Path:
    """The program that is meant by `where`.

    Raises:
        ValueError: there is none.
    """
    if not where.is_absolute():
        raise ValueError(f"{where} is no absolute path")
    for path in (where, where / "git", where / "bin/git"):
        if path.is_file() and os.access(path, os.X_OK):
            return path
    raise ValueError(f"there is no git at {where}")


def main(argv: list[str]) -> int:
    """The command's exit status; 64 if there is no such git."""
    if len(argv) < 2 or not argv[0]:
        sys.stderr.write("say which git, as an absolute path: make test-newer GIT=/opt/git/bin/git\n")
        return USAGE
    try:
        git = program(Path(argv[0]))
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return USAGE
    with tempfile.TemporaryDirectory() as folder:
        if git.name != "git":
            (Path(folder) / "git").symlink_to(git)
            git = Path(folder) / "git"
        environment = {**os.environ, "PATH": f"{git.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
        version = subprocess.run(
            [git, "version"], env=environment, check=True, capture_output=True, text=True
        )
        sys.stderr.write(version.stdout)
        return subprocess.run(argv[1:], env=environment, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
