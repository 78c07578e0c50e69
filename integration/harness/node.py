"""A container that runs `stargate serve`."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from integration.harness.machine import WAIT_LIMIT_S, CommandFailedError, Machine, eventually

SSH_PORT = 2222
HTTP_PORT = 8080
CONFIG = "/etc/stargate/stargate.yaml"
DATA_DIR = "/var/lib/stargate"
NO_SUCH_COMMIT = 129  # git for-each-ref --contains
LOCK = "/mnt/shared/stargate/leader.lock"
ASK_LIMIT_S = 2.0


@dataclass(frozen=True)
class Leadership:
    """What the nodes say of who leads."""

    leader: str
    term: int


class Node(Machine):
    """One Stargate node. `name` is the node's own name, such as `node-a`."""

    def get(self, path: str, limit_s: float = ASK_LIMIT_S) -> tuple[int, bytes]:
        """Status code and body of an HTTP GET at its health endpoints; (0, b"") when nobody answers."""
        try:
            url = f"http://{self.address}:{HTTP_PORT}{path}"
            with urllib.request.urlopen(url, timeout=limit_s) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except OSError:
            return 0, b""

    def status(self) -> dict[str, Any]:
        """What `/status` says; {} when nobody answers."""
        code, body = self.get("/status")
        return dict(json.loads(body)) if code == 200 else {}

    def ready(self) -> bool:
        """Whether `/readyz` says 200: it leads and takes writes."""
        return self.get("/readyz")[0] == 200

    def healthy(self) -> bool:
        """Whether `/healthz` says 200."""
        return self.get("/healthz")[0] == 200

    def wait_ready(self, limit_s: float = WAIT_LIMIT_S) -> "Node":
        """Wait until it leads and takes writes."""
        eventually(self.ready, f"{self.name}: readyz 200", limit_s)
        return self

    def wait_healthy(self, limit_s: float = WAIT_LIMIT_S) -> "Node":
        """Wait until `/healthz` says 200."""
        eventually(self.healthy, f"{self.name}: healthz 200", limit_s)
        return self

    def wait_sync_set(self, *names: str, limit_s: float = WAIT_LIMIT_S) -> "Node":
        """Wait until this leader's sync set is exactly `names`."""
        eventually(
            lambda: self.status().get("sync_set") == list(names), f"{self.name}: sync set {names}", limit_s
        )
        return self

    def wait_logged(self, text: str, count: int = 1) -> "Node":
        """Wait until `text` is `count` times in its log; a session is logged after its client has ended."""
        eventually(lambda: self.logs().count(text) >= count, f"{self.name}: {count} times {text} in its log")
        return self

    def stargate(self, *words: str, ok: bool = True) -> str:
        """`stargate WORDS…` on this node, as its own user; what it wrote on stdout and stderr."""
        return self.run("stargate", *words, ok=ok).text

    def refs(self, repository: str) -> dict[str, str]:
        """The refs of its copy of a repository, by name; without those that only this node has (rescued)."""
        path = f"{DATA_DIR}/repositories/{repository}.git"
        shown = self.ask("git", "--git-dir", path, "for-each-ref", "--format=%(refname) %(objectname)").out
        lines = (line.split() for line in shown.splitlines() if not line.startswith("refs/stargate/"))
        return dict(lines)

    def has(self, repository: str, oid: str) -> bool:
        """Whether a commit is reachable from a branch of its copy of a repository."""
        path = f"{DATA_DIR}/repositories/{repository}.git"
        done = self.ask("git", "--git-dir", path, "for-each-ref", "--contains", oid, "refs/heads", ok=False)
        if done.status not in {0, NO_SUCH_COMMIT}:
            raise CommandFailedError(f"{self.name}: what it has cannot be told: {done}")
        return bool(done.out.strip())

    def fill_disk(self) -> None:
        """Leave no byte free where it keeps its data; needs `Plan(small={"node-a", …})`."""
        self.sh(f"dd if=/dev/zero of={DATA_DIR}/ballast bs=64k 2>/dev/null || true; sync", user="root")

    def free_disk(self) -> None:
        """Undo `fill_disk`."""
        self.sh(f"rm -f {DATA_DIR}/ballast", user="root")
