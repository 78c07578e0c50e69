"""One container as a scenario sees it: a machine that runs commands, stops, dies, freezes, is cut off."""

import io
import tarfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TypeVar

from docker.models.containers import Container
from docker.models.networks import Network

from tests.support.cluster import eventually as wait_for

WAIT_LIMIT_S = 60.0  # generous: these machines are noisy
EXEC_LIMIT_S = 60
ASK_AGAIN = 3
NOT_STARTED = 125  # timeout(1) itself has failed
THE_END = "<the end>\n"
RUN = f'''"$@" <"$0"; status=$?; printf '{THE_END[:-1]}\\n' >&2; exit "$status"'''
STOP_GRACE_S = 30  # more than election.drain_s
INTERFACE = "eth0"
CUT_TABLE = "stargate_cut"

T = TypeVar("T")


def eventually(probe: Callable[[], T], what: str, limit_s: float = WAIT_LIMIT_S) -> T:
    """As `tests.support.cluster.eventually`, with the patience that containers need."""
    return wait_for(probe, what, limit_s)


class OutputLostError(Exception):
    """The engine's fault: nothing is known of the command, and no test may take that for an answer."""


@dataclass(frozen=True)
class Done:
    """How a command in a container ended. Status 124: it did not end within its limit and was killed."""

    argv: tuple[str, ...]
    status: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Everything that it wrote."""
        return self.out + self.err


class CommandFailedError(AssertionError):
    """A command that had to succeed did not; the message has what it wrote."""


class Machine:
    """A container with a fixed address on the cluster's network.

    `user` is who commands run as. A node's own process is not root's and has no capability; what a test does
    to the machine as root has the engine's usual ones and NET_ADMIN.
    """

    def __init__(self, name: str, container: Container, network: Network, address: str, user: str) -> None:
        self.name = name
        self.container = container
        self.network = network
        self.address = address
        self.user = user

    # --- commands and files

    def run(
        self,
        *argv: str,
        ok: bool = True,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        cwd: str | None = None,
        limit_s: float = EXEC_LIMIT_S,
    ) -> Done:
        """Run a command here and wait for it.

        Raises:
            CommandFailedError: with `ok`, when it exits with anything but 0.
            OutputLostError: the engine did not run it to its end, or lost what it said.
        """
        line = ["timeout", "--kill-after=2", f"{limit_s}", *argv]
        source = "/dev/null"
        if stdin:
            source = "/tmp/stdin"  # the container's own
            self.put(source, stdin, owner=user or self.user)
        line = ["sh", "-c", RUN, source, *line]
        status, (out, err) = self.container.exec_run(
            line, user=user or self.user, environment=dict(env or {}), workdir=cwd, demux=True
        )
        text = _text(err)
        # A child that lives on, as git's ssh does, may say something after the end.
        if THE_END not in text or status == NOT_STARTED:
            raise OutputLostError(f"{self.name}: {' '.join(argv)}: status {status}, output {out!r}, {text!r}")
        done = Done(argv, int(status), _text(out), text.replace(THE_END, "", 1))
        if ok and done.status:
            raise CommandFailedError(f"{self.name}: {' '.join(argv)} exited {done.status}\n{done.text}")
        return done

    def ask(self, *argv: str, ok: bool = True) -> Done:
        """As `run`, for what changes nothing: asked again if the engine loses the answer."""
        for _ in range(ASK_AGAIN):
            try:
                return self.run(*argv, ok=ok)
            except OutputLostError as error:
                print(f"asked again: {error}", flush=True)
        return self.run(*argv, ok=ok)

    def sh(
        self, script: str, *, ok: bool = True, user: str | None = None, limit_s: float = EXEC_LIMIT_S
    ) -> Done:
        """Run a piece of shell here; like `run`."""
        return self.run("sh", "-euc", script, ok=ok, user=user, limit_s=limit_s)

    def start_process(self, *argv: str, user: str | None = None) -> None:
        """Start a command here and do not wait for it; it ends with the machine at the latest."""
        self.container.exec_run([*argv], user=user or self.user, detach=True)

    def put(self, path: str, content: bytes | str, *, mode: int = 0o600, owner: str | None = None) -> None:
        """Write a file here; its folder is there already. `owner` is a name or `uid:gid`."""
        data = content.encode() if isinstance(content, str) else content
        where, packed = PurePosixPath(path), io.BytesIO()
        entry = tarfile.TarInfo(where.name)
        entry.size, entry.mode, entry.mtime = len(data), mode, int(time.time())
        entry.uid, entry.gid = OWNERS[owner or self.user]
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.addfile(entry, io.BytesIO(data))
        if not self.container.put_archive(str(where.parent), packed.getvalue()):
            raise CommandFailedError(f"{self.name}: cannot write {path}")

    def logs(self, lines: int | str = "all") -> str:
        """What its main process wrote, over all its starts."""
        return self.container.logs(tail=lines).decode(errors="replace")

    # --- what can happen to it

    def stop(self, grace_s: int = STOP_GRACE_S) -> int:
        """SIGTERM to its main process, SIGKILL after `grace_s`; the exit status."""
        self.container.stop(timeout=grace_s)
        return self._exit_status()

    def kill(self, signal: str = "SIGKILL") -> None:
        """A signal to its main process; after SIGKILL it is gone when this returns."""
        self.container.kill(signal=signal)
        if signal == "SIGKILL":
            self._exit_status()

    def start(self) -> None:
        """Switch it on again; the disk is as it was left."""
        self.container.start()

    def pause(self) -> None:
        """Freeze every process here; the kernel keeps their locks and connections."""
        self.container.pause()

    def thaw(self) -> None:
        """Let the frozen processes run on."""
        self.container.unpause()

    def disconnect(self) -> None:
        """Pull its cable: the link is down, addresses and connections know nothing of it.

        (The engine's own `network disconnect` takes the interface away, and brings another one back.)
        """
        self.run("ip", "link", "set", "dev", INTERFACE, "down", user="root")

    def reconnect(self) -> None:
        """Plug it in again."""
        self.run("ip", "link", "set", "dev", INTERFACE, "up", user="root")

    def cut_from(self, *others: "Machine | str") -> None:
        """Drop every packet from and to the others (machines or addresses), silently, until `mend()`."""
        self._drop("", *others)

    def lose_packets(self, percent: int, *others: "Machine | str") -> None:
        """Drop that part of the packets from and to the others, at random, until `mend()`."""
        self._drop(f"numgen random mod 100 < {percent} ", *others)

    def slow_down(self, kbit_s: int) -> None:
        """Let this machine send no more than that, to anybody, until `speed_up()`."""
        shape = f"rate {kbit_s}kbit burst 16kb latency 400ms"
        self.run("tc", "qdisc", "add", "dev", INTERFACE, "root", "tbf", *shape.split(), user="root")

    def speed_up(self) -> None:
        """Undo `slow_down`."""
        self.run("tc", "qdisc", "del", "dev", INTERFACE, "root", user="root")

    def _drop(self, condition: str, *others: "Machine | str") -> None:
        addresses = ",".join(other if isinstance(other, str) else other.address for other in others)
        rules = "\n".join(
            f"add chain inet {CUT_TABLE} {hook} {{ type filter hook {hook} priority 0; }}\n"
            f"add rule inet {CUT_TABLE} {hook} ip {side} {{ {addresses} }} {condition}drop"
            for hook, side in (("input", "saddr"), ("output", "daddr"))
        )
        self.run("nft", "-f", "-", stdin=f"add table inet {CUT_TABLE}\n{rules}\n".encode(), user="root")

    def mend(self) -> None:
        """Undo every cut and loss of this machine."""
        self.run("nft", "delete", "table", "inet", CUT_TABLE, user="root")

    # --- what it is

    @property
    def running(self) -> bool:
        """Whether its main process is there, frozen or not."""
        self.container.reload()
        return bool(self.container.attrs["State"]["Running"])

    def state(self) -> dict[str, Any]:
        """The engine's word on it: Status, Health, ExitCode, …."""
        self.container.reload()
        return dict(self.container.attrs["State"])

    def _exit_status(self) -> int:
        return int(self.container.wait(timeout=WAIT_LIMIT_S)["StatusCode"])


OWNERS = {"root": (0, 0), "git": (2222, 2222), "dev": (1000, 1000)}  # as in the Dockerfile


def _text(data: bytes | None) -> str:
    return (data or b"").decode(errors="surrogateescape")
