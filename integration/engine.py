"""A Docker engine for one command: `python -m integration.engine COMMAND…`.

A running engine is used as it is. Where none runs, root on Debian or Ubuntu gets one: the packages are
installed, and dockerd is started without a word to the machine's firewall or routes. Several commands may
share it; the last of them to end stops it, by its pid. With `--keep` before the command it is not stopped:
what was printed can be tried. Everybody else is told the exact command to run.
The exit status is the command's; 69 when there is no engine.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import docker
from docker.errors import DockerException

STATE = Path("/run/stargate-engine")  # of a started engine: pid, log, and two locks
USERS = "users"  # held shared by everybody who uses it
TURN = "turn"  # held for moments: who looks at the engine's state, or changes it
# dockerd's own, by program. After `kill -9` they stay, and keep the next one from starting once a process
# of another kind has the number.
PID_FILES = (
    ("dockerd", Path("/var/run/docker.pid")),
    ("containerd", Path("/var/run/docker/containerd/containerd.pid")),
)
PACKAGES = {
    "dockerd": "docker.io",
    "docker-compose": "docker-compose",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
}
# Only internal networks with fixed addresses are used: no rule, no route and no bridge is wanted of it.
DOCKERD = ("dockerd", "--iptables=false", "--ip-forward=false", "--ip-masq=false", "--bridge=none")
START_LIMIT_S = 90.0
STOP_LIMIT_S = 60.0
PING_LIMIT_S = 10
PING_BYTES = 4096
MACHINES_OWN = "unix:///var/run/docker.sock"
POLL_S = 0.1
UNAVAILABLE = 69
INSTALL_LIMIT_S = 900
POLICY = Path("/usr/sbin/policy-rc.d")  # Debian: may a package start its service?


class NoEngineError(Exception):
    """There is no engine, and none can be started; the message says what to run."""


def answers(url: str | None = None) -> bool:
    """Whether a Docker engine answers at `url`; without: the one of $DOCKER_HOST, else the machine's."""
    scheme, _, path = (url or os.environ.get("DOCKER_HOST") or MACHINES_OWN).partition("://")
    try:
        if scheme == "unix":
            return b" 200 " in _pinged(path).partition(b"\r\n")[0]
        with contextlib.closing(docker.from_env(timeout=PING_LIMIT_S)) as client:
            return bool(client.ping())
    except (DockerException, OSError):
        return False


def _pinged(path: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as asked:
        asked.settimeout(PING_LIMIT_S)
        asked.connect(path)
        asked.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
        return asked.recv(PING_BYTES)


@dataclass(frozen=True)
class Own:
    """An engine that is started if it does not answer: its argv, its folder in /run, and where it answers."""

    dockerd: tuple[str, ...] = DOCKERD
    state: Path = STATE
    url: str | None = None
    pid_files: tuple[tuple[str, Path], ...] = PID_FILES

    def answers(self) -> bool:
        """Whether it is there."""
        return answers(self.url)


@contextlib.contextmanager
def engine(own: Own | None = None, *, keep: bool = False) -> Iterator[None]:
    """An engine answers while the context is open; one that was started for it is stopped after the last.

    With `keep` it is not stopped, by nobody: from then on it is an engine like one that was there before.

    Raises:
        NoEngineError: when there is none.
    """
    if os.geteuid() != 0 or os.environ.get("DOCKER_HOST"):
        if not answers():
            raise NoEngineError(_advice())
        yield
        return
    own = own or Own()
    own.state.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (own.state / USERS).open("a") as users:
        with _turn(own):
            there = own.answers()
            _install(present=("dockerd",) if there else ())
            if not there:
                _start(own)
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield
        finally:
            with _turn(own), contextlib.suppress(BlockingIOError):
                if keep:
                    _keep(own)
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _stop(own)


@contextlib.contextmanager
def _turn(own: Own) -> Iterator[None]:
    with (own.state / TURN).open("a") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


def _advice() -> str:
    return (
        "no Docker engine answers, and only root on Debian or Ubuntu gets one by itself; please run:\n"
        f"  sudo apt-get install -y --no-install-recommends {' '.join(PACKAGES.values())}\n"
        f"  sudo sh -c '{' '.join(DOCKERD)} --group {os.getegid()} &'"
    )


def _install(present: tuple[str, ...]) -> None:
    """Install the packages whose programs are missing, apart from those of `present`."""
    wanted = [
        package
        for program, package in PACKAGES.items()
        if program not in present and not shutil.which(program)
    ]
    if not wanted:
        return
    if not shutil.which("apt-get"):
        raise NoEngineError(_advice())
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    wait_for_lock = ("-o", f"DPkg::Lock::Timeout={INSTALL_LIMIT_S}", "-qq")
    with _no_service_started():
        for words in (("update",), ("install", "-y", "--no-install-recommends", *wanted)):
            argv = ["apt-get", *wait_for_lock, *words]
            done = subprocess.run(
                argv, env=quiet, stdout=subprocess.DEVNULL, timeout=INSTALL_LIMIT_S, check=False
            )
            if done.returncode:
                raise NoEngineError(f"this failed, and without it there is no engine: {' '.join(argv)}")


@contextlib.contextmanager
def _no_service_started() -> Iterator[None]:
    """What is installed meanwhile starts no service by itself: the engine is started here, or by nobody."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)


def _start(own: Own) -> None:
    for program, file in own.pid_files:
        _forget_dead(program, file)
    log = own.state / "dockerd.log"
    pid = _spawn(own.dockerd, log)
    since = born(pid)
    (own.state / "pid").write_text(f"{pid} {since}\n")
    _wait_until(lambda: own.answers() or _gone(pid, since), START_LIMIT_S)
    if not own.answers():
        _stop(own)
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise NoEngineError(f"dockerd did not come up:\n{tail}")
    print(f"engine: started dockerd, pid {pid}", file=sys.stderr)


def _forget_dead(program: str, file: Path) -> None:
    with contextlib.suppress(OSError):
        pid = file.read_text().strip()
        comm = Path(f"/proc/{pid}/comm")
        if not comm.exists() or comm.read_text().strip() != program:
            file.unlink()


def _spawn(argv: tuple[str, ...], log: Path) -> int:
    """Start a program that may outlive this one, in a session of its own; its pid."""
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawnp(argv[0], argv, os.environ, file_actions=files, setsid=True)


def _stop(own: Own) -> None:
    """End the dockerd that one of us started; one that was there before has no pid file."""
    file = own.state / "pid"
    with contextlib.suppress(FileNotFoundError):
        pid, since = file.read_text().split()
        if born(int(pid)) == since:
            os.kill(int(pid), signal.SIGTERM)
            _wait_until(lambda: _gone(int(pid), since), STOP_LIMIT_S)
            print(f"engine: stopped dockerd, pid {pid}", file=sys.stderr)
        file.unlink()


def _keep(own: Own) -> None:
    """Forget that we started it, and say how it is stopped."""
    file = own.state / "pid"
    with contextlib.suppress(FileNotFoundError):
        pid, _ = file.read_text().split()
        file.unlink()
        print(f"engine: dockerd goes on; to stop it:  kill {pid}", file=sys.stderr)


def born(pid: int) -> str:
    """When the process began, in the kernel's ticks; a pid alone may be somebody else's by now."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return "gone"


def _gone(pid: int, since: str) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return born(pid) != since


def _wait_until(probe: Callable[[], bool], limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not probe() and time.monotonic() < deadline:
        time.sleep(POLL_S)


def _run(argv: list[str]) -> int:
    """Run the command and wait for it: Ctrl-C is its business (it gets it too), SIGTERM is passed on."""
    process = subprocess.Popen(argv)

    def pass_on(number: int, _: FrameType | None) -> None:
        process.send_signal(number)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, pass_on)
    status = process.wait()
    return status if status >= 0 else 128 - status


def main(argv: list[str]) -> int:
    """The exit status of `argv`, run with an engine at hand."""
    keep = argv[:1] == ["--keep"]
    try:
        with engine(keep=keep):
            return _run(argv[1:] if keep else argv)
    except NoEngineError as error:
        print(error, file=sys.stderr)
        return UNAVAILABLE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
