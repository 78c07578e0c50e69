"""A copied-in repository with very many refs, against `git clone --mirror` of it. Goal: below 3 times.

Each ref has a commit of its own, as in a review system's refs/changes/*. The clone runs on the same machine,
over the same SSH server; the mirror's time is from the copy in the leader's folder, ready to be found by the
next full check, to the standby's refs, less the time until that check.
"""

import shutil
import subprocess
import time
from pathlib import Path

from bench.figures import note, row, title
from tests.support.cluster import Client, NodeProcess, eventually, running_cluster

REFS = 130_000
ROUNDS = 2
LIMIT_S = 900.0
CHECK_S = 2.0


def measure(folder: Path, share: float) -> None:
    """Clone and mirror in turns."""
    count = round(REFS * share)
    title(f"{count} refs of a copied-in repository (goal: the mirror below 3 times the clone)")
    clones, mirrors = [], []
    options = {"overrides": {"replication": {"full_check_s": CHECK_S}}}
    with running_cluster(folder, **options) as cluster:
        leader, standby, client = cluster.leader(), cluster.standby(), cluster.client
        source = many_refs(client, count)
        for number in range(ROUNDS):
            name = f"changes-{number}"
            shutil.copytree(source, folder / name)
            (folder / name).rename(leader.repository(name))
            mirrors.append(_mirrored(leader, standby, name, count))
            target = str(client.home / f"clone-{number}.git")
            began = time.monotonic()
            client.git(
                "clone", "-q", "--mirror", client.url(leader, name), target, cwd=client.home, limit_s=LIMIT_S
            )
            clones.append(time.monotonic() - began)
    row("git clone --mirror", clones, "s")
    row("the mirror", mirrors, "s")
    note(f"ratio of the medians: {sorted(mirrors)[ROUNDS // 2] / sorted(clones)[ROUNDS // 2]:.2f}")


def many_refs(client: Client, count: int) -> Path:
    """A bare repository with that many packed refs, each at a commit of its own, one after the other."""
    path = client.home / "many.git"
    client.git("init", "-q", "--bare", "-b", "main", str(path))
    person = "Test <test@example.org> 1700000000 +0000"
    stream = ["blob\nmark :1\ndata 2\nx\n\n"]
    stream += [
        f"commit refs/heads/main\nmark :{number + 2}\ncommitter {person}\ndata 7\n{number:07}\n"
        "M 100644 :1 file\n\n"
        for number in range(count)
    ]
    marks = client.home / "marks"
    subprocess.run(
        ["git", "--git-dir", str(path), "fast-import", "--quiet", f"--export-marks={marks}"],
        input="".join(stream).encode(), check=True, timeout=LIMIT_S, env=client.environment(),
    )  # fmt: skip
    made = (line.split() for line in marks.read_text().splitlines())
    oids = {int(mark.removeprefix(":")) - 2: oid for mark, oid in made}
    refs = {f"refs/changes/{number % 100:02}/{number}/1": oids[number] for number in range(count)}
    lines = [f"{refs[ref]} {ref}\n" for ref in sorted(refs)]
    (path / "packed-refs").write_text("# pack-refs with: peeled fully-peeled sorted \n" + "".join(lines))
    return path


def _mirrored(leader: NodeProcess, standby: NodeProcess, name: str, count: int) -> float:
    """Seconds from when the standby begins with it to when all of its refs are there."""
    eventually(lambda: standby.repository(name).exists() or _asked(leader, name), "its turn", LIMIT_S)
    began = time.monotonic()
    packed = standby.repository(name) / "packed-refs"

    def there() -> bool:
        return packed.exists() and packed.read_bytes().count(b"\n") > count

    eventually(there, "all refs at the standby", LIMIT_S)
    took_s = time.monotonic() - began
    leader.wait_in_sync_set(standby.name)
    return took_s


def _asked(leader: NodeProcess, name: str) -> bool:
    return f"adopted {name}" in leader.log()
