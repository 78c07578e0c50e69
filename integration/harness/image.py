"""The images of the checkout, the product's and the tests': wheels made outside, then the Dockerfile.

Images are tagged after what they are made from, so several checkouts may use one engine at a time.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from docker import DockerClient
from docker.errors import APIError, BuildError, ImageNotFound

from integration.harness.base import base_image, cache_dir

ROOT = Path(__file__).parent.parent.parent
IMAGE_LABEL = "org.stargate.image"
PYTHON = "3.11"  # bookworm's
TOOL_WHEELS = ("paramiko",)  # a second SSH implementation, as a client
GLIBC = (
    "manylinux_2_34",
    "manylinux_2_28",
    "manylinux_2_17",
    "manylinux2014",
    "manylinux_2_12",
    "manylinux1",
)
PIP_LIMIT_S = 900
KEPT = timedelta(days=1)


class NoImageError(Exception):
    """The image could not be built; the message has the last lines of what failed."""


@dataclass(frozen=True)
class Kind:
    """An image: a target of the Dockerfile, its repository, its lists of Debian packages."""

    target: str
    repository: str
    packages: tuple[str, ...]


PRODUCT = Kind("node", "stargate-node", ("node",))  # Stargate, and nothing else
TEST = Kind("tools", "stargate-test", ("node", "tools"))  # the same, with clients and a user `dev`


def built_image(client: DockerClient, kind: Kind) -> str:
    """The name of that image with the checkout's Stargate; built if need be."""
    with (cache_dir() / "image.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with tempfile.TemporaryDirectory(prefix="stargate-context-") as folder:
            context = Path(folder)
            _fill(context, kind, architecture=client.info()["Architecture"])
            base = base_image(client, kind.packages)
            tag = f"{kind.repository}:{_digest(context, base)}"
            if not _is_there(client, tag):
                _build(client, context, base, tag, kind.target)
                _remove_old(client)
        return tag


def _fill(context: Path, kind: Kind, architecture: str) -> None:
    """Everything that the Dockerfile copies, and nothing else."""
    shutil.copytree(ROOT / "integration" / "packages", context / "integration" / "packages")
    for name in ("Dockerfile", "install-packages"):
        shutil.copy2(ROOT / "integration" / name, context / "integration" / name)
    wheels = context / "wheels"
    _pip("wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels / "stargate"), str(ROOT))
    (own,) = (wheels / "stargate").iterdir()
    needs = _downloaded(architecture, (str(own),), "node", key=_requirements())
    _link(needs, wheels / "node", leave_out=own.name)
    if kind == TEST:
        tools = _downloaded(architecture, TOOL_WHEELS, "tools", key=" ".join(TOOL_WHEELS))
        _link(tools, wheels / "tools")


def _downloaded(architecture: str, wanted: Iterable[str], what: str, key: str) -> Path:
    """A folder with wheels of `wanted` and what they need, for the image's Python; kept between runs."""
    constraints = ROOT / "constraints.txt"
    digest = hashlib.sha256((architecture + key + constraints.read_text()).encode()).hexdigest()[:12]
    kept = cache_dir() / f"wheels-{what}-{digest}"
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix="wheels-") as folder:
            new = Path(folder) / "new"
            platforms = [word for glibc in GLIBC for word in ("--platform", f"{glibc}_{architecture}")]
            _pip(
                "download", "-d", str(new), "-c", str(constraints), "--only-binary=:all:",
                "--python-version", PYTHON, "--implementation", "cp", *platforms, *wanted,
            )  # fmt: skip
            new.rename(kept)
    return kept


def _requirements() -> str:
    """What decides which wheels a node needs."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])


def _link(source: Path, to: Path, leave_out: str = "") -> None:
    to.mkdir(parents=True)
    for file in source.iterdir():
        if file.name.split("-")[0] != leave_out.split("-", maxsplit=1)[0]:
            shutil.copy2(file, to / file.name)


def _pip(*words: str) -> None:
    argv = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *words]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}  # the same wheel from the same files
    done = subprocess.run(
        argv, env=environment, capture_output=True, text=True, timeout=PIP_LIMIT_S, check=False
    )
    if done.returncode:
        raise NoImageError(f"pip {' '.join(words)}\n{(done.stdout + done.stderr)[-3000:]}")


def _digest(context: Path, base: str) -> str:
    whole = hashlib.sha256(base.encode())
    for file in sorted(path for path in context.rglob("*") if path.is_file()):
        whole.update(str(file.relative_to(context)).encode() + file.read_bytes())
    return whole.hexdigest()[:12]


def _is_there(client: DockerClient, tag: str) -> bool:
    try:
        client.images.get(tag)
    except ImageNotFound:
        return False
    return True


def _build(client: DockerClient, context: Path, base: str, tag: str, target: str) -> None:
    try:
        client.images.build(
            path=str(context), dockerfile="integration/Dockerfile", target=target, tag=tag,
            buildargs={"BASE": base}, network_mode="host", rm=True, forcerm=True, labels={IMAGE_LABEL: "1"},
        )  # fmt: skip
    except BuildError as error:
        raise NoImageError("".join(_lines(error))[-3000:]) from error


def _remove_old(client: DockerClient) -> None:
    """Images of checkouts that have changed since; one that a container uses is left alone."""
    for image in client.images.list(filters={"label": IMAGE_LABEL}):
        made = datetime.fromisoformat(image.attrs["Created"][:19]).replace(tzinfo=UTC)
        if datetime.now(UTC) - made > KEPT:
            with contextlib.suppress(APIError):
                client.images.remove(image.id)


def _lines(error: BuildError) -> Iterator[str]:
    for entry in error.build_log:
        yield str(entry.get("stream") or entry.get("error") or "")
