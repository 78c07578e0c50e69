"""The base image: Debian bookworm with the packages that the nodes and the tests need.

It is kept as a local image, and as an archive in `$XDG_CACHE_HOME/stargate`, both named after what it is
made from, so that only the first run on a machine takes its minute. `$STARGATE_BASE` names an image to
take instead.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from docker import DockerClient
from docker.errors import DockerException, ImageNotFound

SUITE = "bookworm"
PULLED = f"debian:{SUITE}-slim"
REPOSITORY = "stargate-base"
PACKAGE_LISTS = Path(__file__).parent.parent / "packages"
PULL_LIMIT_S = 120
MAKE_LIMIT_S = 1200


class NoBaseError(Exception):
    """There is no base image, and none can be made; the message says what is missing."""


def cache_dir() -> Path:
    """Where archives are kept between runs; outside of the checkout."""
    named = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(named) if named else Path.home() / ".cache") / "stargate"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def base_image(client: DockerClient, lists: Sequence[str]) -> str:
    """The name of the base image for the packages of `lists`, on the engine; pulled or made if need be.

    Raises:
        NoBaseError: when no registry answers and this machine cannot make one.
    """
    named = os.environ.get("STARGATE_BASE")
    if named:
        return named
    wanted = packages(lists)
    key = _key(wanted)
    tag = f"{REPOSITORY}:{key}"
    if _is_there(client, tag):
        return tag
    archive = cache_dir() / f"base-{key}.tar"
    if not archive.exists() and _pulled(client, tag):
        return tag
    if not archive.exists():
        _make(archive, wanted)
    client.api.import_image_from_file(str(archive), repository=REPOSITORY, tag=key)
    return tag


def packages(lists: Sequence[str]) -> list[str]:
    """The Debian packages of a base, from these lists in `integration/packages/`."""
    return sorted({line for name in lists for line in (PACKAGE_LISTS / name).read_text().split()})


def _key(wanted: Sequence[str]) -> str:
    return hashlib.sha256(" ".join([SUITE, *wanted]).encode()).hexdigest()[:12]


def _is_there(client: DockerClient, tag: str) -> bool:
    try:
        client.images.get(tag)
    except ImageNotFound:
        return False
    return True


def _pulled(client: DockerClient, tag: str) -> bool:
    try:
        client.images.pull(PULLED).tag(tag)
    except DockerException:
        return False
    return True


def _make(archive: Path, wanted: Sequence[str]) -> None:
    """Write a root file system made by debootstrap(8); the archive is there whole or not at all."""
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        raise NoBaseError(
            f"no registry gave {PULLED}; as root, with debootstrap, it is made from Debian's packages; "
            "or name an image with Python 3.11 and git in STARGATE_BASE"
        )
    mirror = _mirror()
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix="base-") as folder:
        root, made = Path(folder) / "root", Path(folder) / "made.tar"
        include = ",".join(wanted)
        _run("debootstrap", "--variant=minbase", f"--include={include}", SUITE, str(root), mirror)
        for litter in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
            shutil.rmtree(root / litter, ignore_errors=True)
        _run("tar", "--numeric-owner", "--one-file-system", "-C", str(root), "-cf", str(made), ".")
        made.rename(archive)


def _mirror() -> str:
    """Where this machine's own apt gets Debian's main archive."""
    fields = "$(REPO_URI) $(CODENAME) $(COMPONENT) $(ORIGIN)"
    done = subprocess.run(
        ["apt-get", "indextargets", "--format", fields, "Created-By: Packages"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    found = [line.split() for line in done.stdout.splitlines()]
    debian = [words for words in found if words[2:] == ["main", "Debian"]]
    best = sorted(debian, key=lambda words: words[1] != SUITE)
    plain = [words[0] for words in best if "security" not in words[0]]
    if not plain:
        raise NoBaseError("apt on this machine has no Debian archive; name an image in STARGATE_BASE")
    return plain[0]


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=MAKE_LIMIT_S, check=False)
    if done.returncode:
        raise NoBaseError(f"{argv[0]} exited {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
