"""A Docker engine for one command: `python -m integration.engine COMMAND…`.

A running engine is used as it is. Where none runs, root on Debian or Ubuntu gets one: the packages are
installed, and dockerd is started without a word to the machine's firewall or routes. Several commands may
share it; the last of them to end stops it, by its pid. Everybody else is told the exact command to run.
The exit status is the command's; 69 when there is no engine.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import docker
from docker.errors import DockerException

STATE = Path("/run/stargate-engine")  # of a started engine: pid, log, and two locks
TURN = STATE / "turn"  # held for moments: who looks at the engine's state, or changes it
USERS = STATE / "users"  # held shared by everybody who uses it
PACKAGES = ("docker.io", "debootstrap", "iproute2")
PROGRAMS = ("dockerd", "debootstrap", "ip")
# Only internal networks with fixed addresses are used: no rule, no route and no bridge is wanted of it.
DOCKERD = ("dockerd", "--iptables=false", "--ip-forward=false", "--ip-masq=false", "--bridge=none")
START_LIMIT_S = 90.0
STOP_LIMIT_S = 60.0
PING_LIMIT_S = 10
POLL_S = 0.1
UNAVAILABLE = 69
INSTALL_LIMIT_S = 900


class NoEngineError(Exception):
    """There is no engine, and none can be started; the message says what to run."""


def answers() -> bool:
    """Whether a Docker engine answers: the one that $DOCKER_HOST names, else the machine's."""
    try:
        client = docker.from_env(timeout=PING_LIMIT_S)
    except DockerException:
        return False
    with contextlib.closing(client):
        try:
            return bool(client.ping())
        except (DockerException, OSError):
            return False


@contextlib.contextmanager
def engine() -> Iterator[None]:
    """An engine answers while the context is open; one that was started for it is stopped after it.

    Raises:
        NoEngineError: when there is none.
    """
    if os.geteuid() != 0 or os.environ.get("DOCKER_HOST"):
        if not answers():
            raise NoEngineError(_advice())
        yield
        return
    STATE.mkdir(mode=0o755, parents=True, exist_ok=True)
    with USERS.open("a") as users:
        with _turn():
            if not answers():
                _install()
                _start()
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield
        finally:
            with _turn(), contextlib.suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _stop()


@contextlib.contextmanager
def _turn() -> Iterator[None]:
    with TURN.open("a") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


def _advice() -> str:
    return (
        "no Docker engine answers, and only root on Debian or Ubuntu gets one by itself; please run:\n"
        f"  sudo apt-get install -y --no-install-recommends {' '.join(PACKAGES)}\n"
        f"  sudo sh -c '{' '.join(DOCKERD)} --group {os.getegid()} &'"
    )


def _install() -> None:
    if all(shutil.which(program) for program in PROGRAMS):
        return
    if not shutil.which("apt-get"):
        raise NoEngineError(_advice())
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    wait_for_lock = ("-o", f"DPkg::Lock::Timeout={INSTALL_LIMIT_S}", "-qq")
    for words in (("update",), ("install", "-y", "--no-install-recommends", *PACKAGES)):
        argv = ["apt-get", *wait_for_lock, *words]
        done = subprocess.run(
            argv, env=quiet, stdout=subprocess.DEVNULL, timeout=INSTALL_LIMIT_S, check=False
        )
        if done.returncode:
            raise NoEngineError(f"this failed, and without it there is no engine: {' '.join(argv)}")


def _start() -> None:
    _wait_until(answers, 5 * POLL_S)  # a service manager may have started it with its installation
    if answers():
        return
    log = STATE / "dockerd.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            DOCKERD, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, close_fds=True
        )
    (STATE / "pid").write_text(f"{process.pid} {born(process.pid)}\n")
    _wait_until(lambda: answers() or process.poll() is not None, START_LIMIT_S)
    if not answers():
        _stop()
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise NoEngineError(f"dockerd did not come up within {START_LIMIT_S:.0f} s:\n{tail}")
    print(f"engine: started dockerd, pid {process.pid}", file=sys.stderr)


def _stop() -> None:
    """End the dockerd that one of us started; one that was there before has no pid file."""
    file = STATE / "pid"
    with contextlib.suppress(FileNotFoundError):
        pid, born = file.read_text().split()
        if born(int(pid)) == born:
            os.kill(int(pid), signal.SIGTERM)
            _wait_until(lambda: _gone(int(pid), born), STOP_LIMIT_S)
            print(f"engine: stopped dockerd, pid {pid}", file=sys.stderr)
        file.unlink()


def born(pid: int) -> str:
    """When the process began, in the kernel's ticks; a pid alone may be somebody else's by now."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return "gone"


def _gone(pid: int, born: str) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return born(pid) != born


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
    try:
        with engine():
            return _run(argv)
    except NoEngineError as error:
        print(error, file=sys.stderr)
        return UNAVAILABLE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
