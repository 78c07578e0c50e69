"""A developer's machine: git, ssh, a key, and a name for the cluster that somebody moves."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from integration.harness.machine import Done, Machine
from integration.harness.node import SSH_PORT, Node

NAME = "stargate.local"
HOME = "/home/dev"
PUSHER = Path(__file__).parent / "pusher.py"
HOSTS_MARK = "# stargate"
IN_CLIENT = "/tmp/pusher.py"  # the container's own


@dataclass(frozen=True)
class Push:
    """One attempt of a pusher. Times are CLOCK_MONOTONIC in seconds, the same on the whole engine."""

    began_s: float
    ended_s: float
    oid: str
    ok: bool
    said: str


class Client(Machine):
    """The user `dev` with an admin's key. `where` is a node, an address or a name; default stargate.local."""

    def url(self, repository: str, where: Node | str = NAME) -> str:
        """The URL of a repository."""
        return f"ssh://git@{_host(where)}:{SSH_PORT}/{repository}"

    def git(self, *words: str, cwd: str | None = None, ok: bool = True) -> Done:
        """Run git in `cwd`, below the home folder."""
        return self.run("git", *words, cwd=f"{HOME}/{cwd or ''}", ok=ok)

    def ssh(self, *words: str, where: Node | str = NAME, ok: bool = True) -> Done:
        """`ssh -p 2222 git@where WORDS…`."""
        return self.run("ssh", "-p", str(SSH_PORT), f"git@{_host(where)}", *words, ok=ok)

    def work_tree(self, name: str, repository: str | None = None) -> str:
        """A new repository with one commit on `main`, and `origin` at the cluster; its name."""
        self.git("init", "-q", "-b", "main", name)
        self.git("remote", "add", "origin", self.url(repository or name), cwd=name)
        self.commit(name, "first")
        return name

    def commit(self, tree: str, text: str) -> str:
        """One more commit in a work tree; its oid."""
        self.git("commit", "-q", "--allow-empty", "-m", text, cwd=tree)
        return self.git("rev-parse", "HEAD", cwd=tree).out.strip()

    def push(
        self, tree: str, where: Node | str = NAME, *, repository: str | None = None, ok: bool = True
    ) -> Done:
        """Push the tree's `main`."""
        return self.git("push", "-q", self.url(repository or tree, where), "main", cwd=tree, ok=ok)

    def point_name_at(self, address: str) -> None:
        """Let `stargate.local` mean `address` on this machine; nothing else moves."""
        self.sh(
            f"sed '/{HOSTS_MARK}$/d' /etc/hosts >/tmp/hosts; "
            f"echo '{address} {NAME} {HOSTS_MARK}' >>/tmp/hosts; cat /tmp/hosts >/etc/hosts",
            user="root",
        )

    def start_pusher(self, tree: str, where: Node | str = NAME) -> "Pusher":
        """Push one commit after the other from `tree`, without a pause, until told to stop."""
        self.put(IN_CLIENT, PUSHER.read_bytes(), owner="dev", mode=0o644)
        pusher = Pusher(self, f"/tmp/{tree}.pushes")  # the container's own
        self.sh(f"rm -f {pusher.file}*")
        self.start_process("python3", IN_CLIENT, f"{HOME}/{tree}", self.url(tree, where), pusher.file)
        return pusher


class Pusher:
    """A loop of pushes in a client, and what came of them."""

    def __init__(self, client: Client, file: str) -> None:
        self._client = client
        self.file = file

    def pushes(self) -> list[Push]:
        """Every attempt that has ended so far."""
        lines: list[dict[str, Any]] = [
            json.loads(line) for line in self._client.run("cat", self.file, ok=False).out.splitlines()
        ]
        return [Push(**fields) for fields in lines]

    def accepted(self, since_s: float = 0.0) -> list[Push]:
        """The attempts that succeeded, of those that ended after `since_s`."""
        return [push for push in self.pushes() if push.ok and push.ended_s > since_s]

    def stop(self) -> list[Push]:
        """End the loop after the attempt that runs; every attempt."""
        self._client.sh(f"touch {self.file}.stop; while ! [ -e {self.file}.ended ]; do sleep 0.05; done")
        return self.pushes()


def _host(where: Node | str) -> str:
    return where.address if isinstance(where, Node) else where
