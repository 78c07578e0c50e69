"""Runs a node and writes down which functions of stargate_gate each of its pushes calls.

    python -m bench.traced FILE COMMAND…    COMMAND is the node's, as it would be without this module

A push begins when the client's exec request arrives and ends when the "ok" of its report is given to
asyncssh. Both are recognised by names of asyncssh, so renaming modules or functions of Stargate changes
nothing here. At the end of each push one line is appended to FILE: a JSON list of [module, function] in
the order of the calls, in all threads. Left out are the resumption of a coroutine, comprehensions, and the
methods that dataclasses generate: nobody has to read those.
"""

import json
import opcode
import runpy
import sys
import threading
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

PACKAGE = "stargate_gate."
BEGIN = "_process_exec_request"  # of asyncssh's SSHServerChannel, and of what overrides it
END = ("asyncssh.channel", "write")
END_BYTES = b"unpack ok"
NO_FUNCTION = frozenset({"<module>", "<genexpr>", "<listcomp>", "<setcomp>", "<dictcomp>", "<lambda>"})
RESUME = opcode.opmap["RESUME"]
RESUMED = 3  # the bits of RESUME's argument that are 0 at the first entry of a frame


class Recorder:
    """The profile function of all threads. Records nothing between two pushes."""

    def __init__(self, written: Path) -> None:
        self._written = written
        self._calls: list[tuple[str, str]] | None = None

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> None:
        """Python: `event` happened in `frame`."""
        if event != "call":
            return
        code = frame.f_code
        if code.co_name == BEGIN and self._calls is None:
            self._calls = []
        if self._calls is None:
            return
        module = frame.f_globals.get("__name__", "")
        if module.startswith(PACKAGE) and _is_written(code) and _is_entered(frame):
            self._calls.append((module, code.co_name))
        elif (module, code.co_name) == END and END_BYTES in frame.f_locals["data"]:
            calls, self._calls = self._calls, None
            with self._written.open("a") as file:
                file.write(json.dumps(calls) + "\n")


def _is_written(code: CodeType) -> bool:
    """Whether somebody wrote it as a function: a generated one comes from no file."""
    return code.co_name not in NO_FUNCTION and code.co_filename.endswith(".py")


def _is_entered(frame: FrameType) -> bool:
    """Whether the call is a first entry, and not the resumption of a coroutine."""
    code, at = frame.f_code.co_code, frame.f_lasti
    return code[at] != RESUME or code[at + 1] & RESUMED == 0


def main(arguments: list[str]) -> None:
    """Run `COMMAND`, which is PYTHON -m MODULE WORDS…, in this process."""
    written, _python, _m, module, *words = arguments
    recorder = Recorder(Path(written))
    threading.setprofile(recorder)
    sys.setprofile(recorder)
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
