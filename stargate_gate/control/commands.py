"""What an operator on this machine may ask of the running node, through the control socket.

Repository commands go through the gate's own request function, as an administrator: the same parsing,
the same refusals, the same log line.
"""

import secrets
import shlex
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeAlias

from stargate_gate.access.identity import Identity
from stargate_gate.control.rescued import RescuedCommands
from stargate_gate.control.scrub import ScrubCommands
from stargate_gate.errors import UsageError
from stargate_gate.exitcodes import ExitCode
from stargate_gate.gate.ports import Request
from stargate_gate.gate.session import Gate
from stargate_gate.health.report import Reports

Args: TypeAlias = Mapping[str, Any]


class Promotion(Protocol):
    """The operator's override of who may lead."""

    def risk(self) -> str:
        """What may be lost by it, as far as this node knows; lines for people."""

    def promote(self) -> str:
        """Override eligibility for one attempt to lead; what comes next."""


OPERATOR = Identity(user="operator", access="admin", fingerprint="", source="control socket")


class _Captured:
    """A gate `Channel` without a client behind it: nothing to read, and what is written is kept."""

    def __init__(self) -> None:
        self.output = bytearray()
        self.errors = bytearray()
        self.status = int(ExitCode.INTERNAL)

    async def read(self, n: int) -> bytes:  # noqa: ARG002 - the port's signature
        return b""

    async def write(self, data: bytes) -> None:
        self.output += data

    async def write_error(self, data: bytes) -> None:
        self.errors += data

    async def exit(self, status: int) -> None:
        self.status = status


class OperatorCommands:
    """The control socket's handler."""

    def __init__(
        self,
        gate: Gate,
        reports: Reports,
        promotion: Promotion,
        rescued: RescuedCommands,
        scrub: ScrubCommands,
    ) -> None:
        self._gate = gate
        self._reports = reports
        self._promotion = promotion
        self._rescued = rescued
        self._at_once: Mapping[str, Callable[[Args], Args]] = {
            "status": self._status,
            "health": lambda _: _verdict(*reports.healthy(), otherwise=ExitCode.UNAVAILABLE),
            "ready": lambda _: _verdict(*reports.ready(), otherwise=ExitCode.NOT_LEADER),
            "promote-risk": lambda _: {"output": promotion.risk()},
            "promote": self._promote,
            "rescued-list": lambda args: rescued.list(as_json=args.get("json") is True),
        }
        self._working: Mapping[str, Callable[[Args], Awaitable[Args]]] = {
            "repo-list": lambda _: self._through_the_gate("repo", "list"),
            "repo-create": self._create,
            "repo-delete": lambda args: self._through_the_gate("repo", "delete", str(args.get("name", ""))),
            "repo-verify": scrub.verify,
            "repo-verify-names": scrub.names,
            "rescued-restore": rescued.restore,
            "rescued-drop": rescued.drop,
        }

    async def handle(self, command: str, args: Args) -> Args:
        """Carry out one command of `stargate …`.

        Raises:
            StargateError: the command is invalid, or was refused.
        """
        if (at_once := self._at_once.get(command)) is not None:
            return at_once(args)
        if (working := self._working.get(command)) is not None:
            return await working(args)
        raise UsageError(f"unknown command {command!r}: this node may be of an older version")

    def _status(self, args: Args) -> Args:
        level, text = self._reports.status(as_json=args.get("json") is True)
        return {"exit": level, "output": text}

    def _promote(self, args: Args) -> Args:
        if args.get("accept_data_loss") is not True:
            raise UsageError("promote needs --accept-data-loss")
        return {"output": self._promotion.promote()}

    async def _create(self, args: Args) -> Args:
        name, object_format = str(args.get("name", "")), str(args.get("object_format", "sha1"))
        return await self._through_the_gate("repo", "create", name, f"--object-format={object_format}")

    async def _through_the_gate(self, *words: str) -> Args:
        channel = _Captured()
        request = Request(OPERATOR, shlex.join(words), None, secrets.token_hex(4))
        await self._gate.handle(request, channel)
        error = channel.errors.decode("utf-8", "replace").strip().removeprefix("stargate: ")
        return {"exit": channel.status, "output": channel.output.decode("utf-8", "replace"), "error": error}


def _verdict(good: bool, line: str, *, otherwise: ExitCode) -> Args:  # noqa: FBT001 - read as a sentence
    return {"exit": int(ExitCode.OK if good else otherwise), "output": line}
