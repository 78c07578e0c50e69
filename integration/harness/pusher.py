"""Runs in a client: pushes one commit after the other and writes what came of each as a line of JSON.

pusher.py WORK_TREE URL FILE: until FILE.stop is there; FILE.ended is made at the end.
"""

import json
import os
import subprocess
import sys
import time

PUSH_LIMIT_S = 30
PAUSE_S = 0.05  # after a refusal: as fast as a person's retry loop, and no faster


def main(tree: str, url: str, file: str) -> None:
    """Push until told to stop."""
    number = 0
    with open(file, "w", buffering=1) as out:
        while not os.path.exists(f"{file}.stop"):
            number += 1
            _git(tree, "commit", "-q", "--allow-empty", "-m", f"push {number}")
            oid = _git(tree, "rev-parse", "HEAD").stdout.strip()
            began_s = time.monotonic()
            done = _git(tree, "push", "-q", url, "main")
            entry = {
                "began_s": began_s, "ended_s": time.monotonic(), "oid": oid,
                "ok": done.returncode == 0, "said": done.stderr[-500:],
            }  # fmt: skip
            out.write(json.dumps(entry) + "\n")
            if done.returncode:
                time.sleep(PAUSE_S)
    open(f"{file}.ended", "w").close()


def _git(tree: str, *words: str) -> "subprocess.CompletedProcess[str]":
    argv = ["git", "-C", tree, *words]
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=PUSH_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 124, "", f"no answer in {PUSH_LIMIT_S} s")


if __name__ == "__main__":
    main(*sys.argv[1:4])
