"""Runs in a client: writes one thing after the other, and what came of each as a line of JSON.

pusher.py KIND WORK_TREE URL FILE: until FILE.stop is there; FILE.ended is made at the end. KIND is `push` (a
commit to `main` at URL) or `kv` (`git kv set`, to the work tree's `origin`).
"""

import json
import os
import subprocess
import sys
import time

PUSH_LIMIT_S = 60
PAUSE_S = 0.05  # after a refusal: as a person's retry loop, only faster
SAID_BYTES = 500


def main(kind: str, tree: str, url: str, file: str) -> None:
    """Write until told to stop."""
    number = 0
    with open(file, "w", buffering=1) as out:
        while not os.path.exists(f"{file}.stop"):
            number += 1
            what, words = _prepare(kind, tree, url, number)
            began_s = time.monotonic()
            done = _git(tree, *words)
            entry = {
                "began_s": began_s, "ended_s": time.monotonic(), "what": what,
                "ok": done.returncode == 0, "said": done.stderr[-SAID_BYTES:],
            }  # fmt: skip
            out.write(json.dumps(entry) + "\n")
            if done.returncode:
                time.sleep(PAUSE_S)
    open(f"{file}.ended", "w").close()


def _prepare(kind: str, tree: str, url: str, number: int) -> "tuple[str, tuple[str, ...]]":
    """The name of what is written (an oid or a key), and git's arguments that write it."""
    if kind == "kv":
        return f"key-{number}", ("kv", "set", f"key-{number}", str(number))
    _git(tree, "commit", "-q", "--allow-empty", "-m", f"push {number}")
    return _git(tree, "rev-parse", "HEAD").stdout.strip(), ("push", "-q", url, "main")


def _git(tree: str, *words: str) -> "subprocess.CompletedProcess[str]":
    argv = ["git", "-C", tree, *words]
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=PUSH_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 124, "", f"no answer in {PUSH_LIMIT_S} s")


if __name__ == "__main__":
    main(*sys.argv[1:5])
