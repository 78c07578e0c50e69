"""A developer's machine: git, ssh, a key, and a name for the cluster that somebody moves."""

from pathlib import Path

from integration.harness.machine import Done, Machine
from integration.harness.node import SSH_PORT, Node
from integration.harness.pushes import Pusher

NAME = "stargate.local"
HOME = "/home/dev"
PUSHER = Path(__file__).parent / "pusher.py"
HOSTS_MARK = "# stargate"
IN_CLIENT = "/tmp/pusher.py"  # the container's own


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

    def commit(self, tree: str, text: str, *, size_kib: int = 0) -> str:
        """One more commit in a work tree, with a file of that much noise; its oid."""
        if size_kib:
            self.sh(f"head -c {size_kib}K /dev/urandom >{HOME}/{tree}/noise")
            self.git("add", "noise", cwd=tree)
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

    def start_pusher(self, tree: str, kind: str = "push") -> Pusher:
        """Write through `stargate.local` from a work tree, one thing after the other, without a pause.

        `kind`: `push` pushes a commit each, which succeeds or fails; `kv` runs `git kv set`, which tries
        again by itself.
        """
        self.put(IN_CLIENT, PUSHER.read_bytes(), owner="dev", mode=0o644)
        pusher = Pusher(self, f"/tmp/{tree}.{kind}")
        self.sh(f"rm -f {pusher.file}*")
        self.start_process("python3", IN_CLIENT, kind, f"{HOME}/{tree}", self.url(tree), pusher.file)
        return pusher


def _host(where: Node | str) -> str:
    return where.address if isinstance(where, Node) else where
