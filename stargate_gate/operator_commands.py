"""What an operator on this machine may ask of the running node, through the control socket.

Repository commands go through the gate's own request function, as an administrator: the same parsing,
the same refusals, the same log line. May import: gate, health (control's port), errors, exitcodes.
"""

import secrets
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from stargate_gate.errors import UsageError
from stargate_gate.exitcodes import ExitCode
from stargate_gate.gate.identity import Identity
from stargate_gate.gate.ports import Request
from stargate_gate.gate.session import Gate
from stargate_gate.health.report import Reports

OPERATOR = Identity(user="operator", access="admin", fingerprint="", source="control socket")


class _Captured:
    """A gate `Channel` without a client behind it: nothing to read, and what is written is kept."""

    def __init__(self) -> None:
        self.output = bytearray()
        self.errors = bytearray()
        self.status = int(ExitCode.INTERNAL)

    async def read(self, n: int) -> bytes:  # noqa: ARG002
        return b""

    async def write(self, data: bytes) -> None:
        self.output += data

    async def write_error(self, data: bytes) -> None:
        self.errors += data

    async def exit(self, status: int) -> None:
        self.status = status


class OperatorCommands:
    """The control socket's handler. `promote` overrides eligibility for one attempt to lead."""

    def __init__(self, gate: Gate, reports: Reports, promote: Callable[[], str]) -> None:
        self._gate = gate
        self._reports = reports
        self._promote = promote

    async def handle(  # noqa: PLR0911 # one return a command
        self, command: str, args: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Carry out one command of `stargate …`.

        Raises:
            StargateError: the command cannot be meant, or was refused.
        """
        match command:
            case "status":
                return {
                    "output": self._reports.status_json() if args.get("json") else self._reports.status_text()
                }
            case "health":
                return _verdict(*self._reports.healthy(), otherwise=ExitCode.UNAVAILABLE)
            case "ready":
                return _verdict(*self._reports.ready(), otherwise=ExitCode.NOT_LEADER)
            case "repo-list":
                return await self._through_the_gate("repo", "list")
            case "repo-create":
                name, object_format = str(args.get("name", "")), str(args.get("object_format", "sha1"))
                return await self._through_the_gate(
                    "repo", "create", name, f"--object-format={object_format}"
                )
            case "repo-delete":
                return await self._through_the_gate("repo", "delete", str(args.get("name", "")))
            case "promote" if args.get("accept_data_loss") is True:
                return {"output": self._promote()}
            case "promote":
                raise UsageError("promote needs --accept-data-loss")
            case _:
                raise UsageError(f"unknown command {command!r}: this node may be of an older version")

    async def _through_the_gate(self, *words: str) -> Mapping[str, Any]:
        channel = _Captured()
        request = Request(OPERATOR, shlex.join(words), None, secrets.token_hex(4))
        await self._gate.handle(request, channel)
        error = channel.errors.decode("utf-8", "replace").strip().removeprefix("stargate: ")
        return {"exit": channel.status, "output": channel.output.decode("utf-8", "replace"), "error": error}


def _verdict(good: bool, line: str, *, otherwise: ExitCode) -> Mapping[str, Any]:  # noqa: FBT001
    return {"exit": int(ExitCode.OK if good else otherwise), "output": line}
