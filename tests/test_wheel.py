"""The wheel, as somebody installs it: built, installed outside the checkout, and run from there."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, make_cluster

ROOT = Path(__file__).resolve().parent.parent
SHARED = (
    "hooks/pre-receive",
    "README.md",
    "CHANGELOG.md",
    "docs/runbook.md",
    "docs/configuration.md",
    "docs/guarantees.md",
    "docs/examples/node-a.yaml",
    "docs/examples/node-b.yaml",
    "docs/examples/single.yaml",
    "sshd/README.md",
    "sshd/sshd_config.d/stargate.conf",
    "systemd/stargate.service",
)


def run(*argv: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program; its output, whatever its exit status."""
    return subprocess.run(
        list(map(str, argv)), cwd=cwd, env={**os.environ, **env},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel built from it; needs no network."""
    folder = tmp_path_factory.mktemp("dist")
    done = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin/ of a fresh virtual environment: the wheel, and the dependencies of this one."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python3*/site-packages")
    (wheel,) = dist.glob("*.whl")
    done = run(
        sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel,
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    # A plain path line: unlike the checkout's own, the .pth file of its editable install is not followed.
    dependencies = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    return python.parent


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: Path) -> Iterator[Cluster]:
    """One node of a cluster, run by the installed program; nothing of the checkout is on its path."""
    monkeypatch.setattr("tests.support.cluster.STARGATE", (str(installed / "stargate"),))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    made = make_cluster(tmp_path, nodes=1)
    yield made
    made.end()


def test_the_wheel_carries_what_is_no_python_as_it_stands_in_the_checkout(dist: Path) -> None:
    """Byte by byte; and no tests."""
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name in SHARED:
            assert archive.read(f"stargate_gate/share/{name}") == (ROOT / name).read_bytes()
        assert not [name for name in archive.namelist() if name.startswith(("tests/", "bench/"))]


def test_an_installed_stargate_says_where_samples_and_documents_are(installed: Path, tmp_path: Path) -> None:
    """On a server there is no checkout."""
    said = run(installed / "stargate", "--help", cwd=tmp_path, COLUMNS="500").stdout
    (folder,) = [Path(word) for word in said.split() if word.endswith("/share/docs")]
    done = run(installed / "stargate", "check-config", folder / "examples" / "single.yaml", cwd=tmp_path)
    assert done.returncode in {0, 78}  # the sample's own paths need not be here
    assert "unknown key" not in done.stderr
    assert (folder / "runbook.md").read_text().startswith("# Runbook")
    assert (folder / ".." / "systemd" / "README.md").exists(), "links from one to the other lead somewhere"


def test_the_sdist_carries_what_it_lists(dist: Path) -> None:
    """A file that pyproject.toml names and nobody wrote would be left out without a word."""
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in ("README.md", "CHANGELOG.md", "LICENSE", "docs/configuration.md", *SHARED):
        assert name in names


def test_what_is_imported_is_the_installed_package(installed: Path, tmp_path: Path) -> None:
    """Otherwise the tests here would prove nothing."""
    code = "import stargate_gate; print(stargate_gate.__file__)"
    done = run(installed / "python", "-c", code, cwd=tmp_path)
    assert Path(done.stdout.strip()).is_relative_to(installed.parent), done.stdout + done.stderr


def test_an_installed_git_kv_works_and_has_its_manual_page(installed: Path, tmp_path: Path) -> None:
    """`git kv` finds the program on PATH; `git kv --help` finds the page beside it."""
    path = f"{installed}{os.pathsep}{os.environ['PATH']}"
    run("git", "init", "-q", "--bare", tmp_path / "served.git", cwd=tmp_path)
    run("git", "init", "-q", tmp_path / "client", cwd=tmp_path)
    run("git", "remote", "add", "origin", tmp_path / "served.git", cwd=tmp_path / "client")
    done = run("git", "kv", "set", "k", "v", cwd=tmp_path / "client", PATH=path)
    assert (done.returncode, done.stderr) == (0, "")
    assert run("git", "kv", "get", "k", cwd=tmp_path / "client", PATH=path).stdout == "v"
    assert (installed.parent / "share" / "man" / "man1" / "git-kv.1").read_text().startswith(".TH GIT-KV 1")


def test_an_installed_node_takes_a_push_and_its_hook_runs(cluster: Cluster, installed: Path) -> None:
    """Bootstrap, serve, status, a push through ssh; a push past the gate meets the hook of the wheel."""
    client = cluster.start().client
    node = cluster.leader()
    status = run(installed / "stargate", "status", "-c", node.config_file, cwd=cluster.root)
    assert status.stdout.startswith("node-a leads test in term 1"), status.stdout + status.stderr
    tree = client.work_tree("app")
    client.git("push", client.url(node, "app"), "main", cwd=tree)
    client.commit(tree, "second")
    past = client.git("push", str(node.repository("app")), "main", cwd=tree, ok=False)
    assert past.returncode == 1
    assert "push through ssh" in past.stderr
    assert (node.data_dir / "hooks" / "pre-receive").read_bytes() == (ROOT / "hooks/pre-receive").read_bytes()
    assert node.terminate() == 0
