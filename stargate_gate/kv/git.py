"""Runs the user's git, with the user's configuration, credentials and ssh.

Every command has a time limit: LOCAL_LIMIT_S for a local one; one that talks to a remote is ended when it has
sent nothing for some time.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

from stargate_gate.kv.errors import KvError
from stargate_gate.kv.outcomes import Done, complaint

LOCAL_LIMIT_S = 300.0  # a pack of 64 MiB on a slow disk
END_LIMIT_S = 5.0  # from SIGTERM to SIGKILL
CHUNK_BYTES = 64 * 1024
MAX_TEXT_BYTES = 1024 * 1024  # of a remote's messages; of longer ones the end is kept

# git's messages are parsed, so they have to be in English. Without replace refs (git-replace(1)), because
# these show other objects than the ones that were asked for.
_ENVIRONMENT = {"LC_ALL": "C", "LANGUAGE": "C", "GIT_NO_REPLACE_OBJECTS": "1"}


def environment() -> dict[str, str]:
    """The user's environment, in English and without replace refs."""
    return {**os.environ, **_ENVIRONMENT}


def run(*args: str, given: bytes = b"", config: Sequence[str] = ()) -> Done:
    """Run a local command to its end, whatever its status.

    Raises:
        KvError: there is no git, or it took longer than LOCAL_LIMIT_S.
    """
    try:
        done = subprocess.run(
            argv(*args, config=config),
            input=given,
            capture_output=True,
            env=environment(),
            timeout=LOCAL_LIMIT_S,
            check=False,
        )
    except FileNotFoundError:
        raise KvError("git is not installed here") from None
    except subprocess.TimeoutExpired:
        raise KvError(f"git {args[0]} took longer than {LOCAL_LIMIT_S:g} s") from None
    return Done(done.returncode, done.stdout, _text(done.stderr))


def output(*args: str, given: bytes = b"", config: Sequence[str] = ()) -> bytes:
    """The stdout of a local command.

    Raises:
        KvError: it failed.
    """
    done = run(*args, given=given, config=config)
    if done.status:
        raise KvError(f"git {args[0]} failed: {complaint(done.stderr)}")
    return done.stdout


def outputs(*commands: tuple[str, ...]) -> list[bytes]:
    """As `output`, for several commands with little output, which run at the same time."""
    with contextlib.ExitStack() as at_end:
        running = [
            at_end.enter_context(
                subprocess.Popen(
                    argv(*command),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=environment(),
                )
            )
            for command in commands
        ]
        said = [process.communicate(timeout=LOCAL_LIMIT_S) for process in running]
    for command, process, (_, stderr) in zip(commands, running, said, strict=True):
        if process.returncode:
            raise KvError(f"git {command[0]} failed: {complaint(_text(stderr))}")
    return [stdout for stdout, _ in said]


def talk(*args: str, config: Sequence[str] = (), patience_s: Callable[[], float]) -> Done:
    """Run a command that talks to a remote; it is ended after `patience_s()` seconds without output.

    `patience_s` is called again after each output. In a terminal, ssh may ask for a passphrase, so the
    command stays in the terminal's foreground. Otherwise it gets a process group of its own, so that its
    children end with it.
    """
    terminal = _has_terminal()
    process = subprocess.Popen(
        argv(*args, config=config),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        process_group=None if terminal else 0,
    )
    try:
        said, silent = _listen(process, patience_s)
        if silent:
            _end(process, group=not terminal)
        status = process.wait(END_LIMIT_S if silent else None)
    except BaseException:
        _end(process, group=not terminal)
        raise
    finally:
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    return Done(status, bytes(said["stdout"]), _text(bytes(said["stderr"])), silent)


def settings() -> dict[str, list[str]]:
    """The effective git configuration: the values of each key, in order; keys as git-config(1) prints them.

    Raises:
        KvError
    """
    found: dict[str, list[str]] = {}
    for item in output("config", "--list", "-z").decode("utf-8", "surrogateescape").split("\0"):
        if item:
            name, _, value = item.partition("\n")
            found.setdefault(name, []).append(value)
    return found


def update_refs(commands: Mapping[str, str | None]) -> bool:
    """Set refs to these oids, or remove them (None), all or nothing. Returns whether it was done."""
    lines = [
        f"update {ref} {oid}\n" if oid is not None else f"delete {ref}\n" for ref, oid in commands.items()
    ]
    done = run("update-ref", "--stdin", given="".join(["start\n", *lines, "commit\n"]).encode())
    return done.status == 0


def argv(*args: str, config: Sequence[str] = ()) -> list[str]:
    """The command line of git with these settings."""
    items = ("core.useReplaceRefs=false", *config)  # 2.39 lets a config win over the environment
    return ["git", *(word for item in items for word in ("-c", item)), *args]


def _text(output: bytes) -> str:
    return output.decode("utf-8", "replace")


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _listen(
    process: subprocess.Popen[bytes], patience_s: Callable[[], float]
) -> tuple[dict[str, bytearray], bool]:
    """Read its output until it ends. Returns the output, and whether it sent nothing for too long before."""
    said = {"stdout": bytearray(), "stderr": bytearray()}
    with selectors.DefaultSelector() as selector:
        for name in said:
            selector.register(getattr(process, name), selectors.EVENT_READ, name)
        until = time.monotonic() + patience_s()
        while selector.get_map():
            ready = selector.select(max(0.0, until - time.monotonic()))
            if not ready:
                return said, True
            for key, _ in ready:
                data = os.read(key.fd, CHUNK_BYTES)
                if not data:
                    selector.unregister(key.fileobj)
                part = said[key.data]
                part += data
                del part[:-MAX_TEXT_BYTES]
            until = time.monotonic() + patience_s()
    return said, False


def _end(process: subprocess.Popen[bytes], *, group: bool) -> None:
    """Send SIGTERM, on which git removes its lock files, then SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            if group:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_LIMIT_S)
