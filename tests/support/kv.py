"""`git kv` as a user runs it: a process of its own, in a repository of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIMIT_S = 90.0


@dataclass(frozen=True)
class Kv:
    """A repository with a remote, and how `git kv` is run there."""

    path: Path
    env: Mapping[str, str] = field(default_factory=dict)

    def run(
        self, *args: str, given: bytes = b"", limit_s: float = LIMIT_S, **env: str
    ) -> subprocess.CompletedProcess[bytes]:
        """`git kv ARGS…`, whatever its status."""
        return subprocess.run(
            ["git", "kv", *args],
            cwd=self.path,
            env=self.environment() | env,
            input=given,
            capture_output=True,
            timeout=limit_s,
            check=False,
        )

    def environment(self) -> dict[str, str]:
        """With the `git-kv` of this interpreter, which git finds on PATH, compiled as pip compiles it."""
        here = str(Path(sys.executable).parent)
        env = {**os.environ, **self.env, "PATH": f"{here}{os.pathsep}{os.environ['PATH']}"}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        return env

    def ok(self, *args: str, given: bytes = b"") -> bytes:
        """Its stdout; it has to succeed, and to say nothing on stderr."""
        done = self.run(*args, given=given)
        assert (done.returncode, done.stderr) == (0, b""), (args, done)
        return done.stdout

    def json(self, *args: str) -> Any:
        """What it prints with --json."""
        return json.loads(self.ok("--json", *args))

    def fails(self, status: int, *args: str, given: bytes = b"") -> str:
        """The one line that it says when it ends with that status; stdout has to be empty."""
        done = self.run(*args, given=given)
        assert (done.returncode, done.stdout) == (status, b""), (args, done)
        line = done.stderr.decode()
        assert line.count("\n") == 1, line
        assert line.startswith("git kv: "), line
        return line.removeprefix("git kv: ").rstrip("\n")

    def git(self, *args: str) -> str:
        """Plain git here, which has to succeed; its stdout."""
        done = subprocess.run(
            ["git", *args], cwd=self.path, env=self.environment(),
            capture_output=True, text=True, timeout=LIMIT_S, check=True,
        )  # fmt: skip
        return done.stdout.strip()


def make_clone(path: Path, *urls: str, env: Mapping[str, str] | None = None, bare: bool = False) -> Kv:
    """An empty repository whose `origin` has these URLs; more than one are its pushurls."""
    subprocess.run(
        ["git", "init", "-q", *(["--bare"] if bare else []), str(path)], check=True, timeout=LIMIT_S
    )
    kv = Kv(path, env or {})
    kv.git("remote", "add", "origin", urls[0])
    for url in urls if len(urls) > 1 else ():
        kv.git("config", "--add", "remote.origin.pushurl", url)
    return kv
