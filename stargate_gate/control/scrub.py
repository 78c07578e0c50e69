"""`stargate repo verify` on the node's side: checks one copy now, and says what was found."""

from collections.abc import Mapping
from typing import Any

from stargate_gate.exitcodes import ExitCode
from stargate_gate.repos.names import parse_repository_name
from stargate_gate.scrub.findings import Report, Result
from stargate_gate.scrub.scrubber import Scrubber

EXITS: Mapping[Result, ExitCode] = {
    "sound": ExitCode.OK,
    "damaged": ExitCode.UNAVAILABLE,
    "unverified": ExitCode.TRY_AGAIN,
}


class ScrubCommands:
    """The commands about checks of this node's copies."""

    def __init__(self, scrubber: Scrubber) -> None:
        self._scrubber = scrubber

    async def verify(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Check the copy of `name` now; exit 69 if it is damaged, 75 if it could not be checked.

        Raises:
            UsageError, NoSuchRepositoryError, UnavailableError
        """
        report = await self._scrubber.verify(parse_repository_name(str(args.get("name", ""))))
        return {
            "exit": int(EXITS[report.verdict.result]),
            "output": text_of(report),
            "data": _data(report),
        }

    async def names(self, _args: Mapping[str, Any]) -> Mapping[str, Any]:
        """The names of all copies here, also incomplete ones."""
        return {"data": await self._scrubber.names()}


def text_of(report: Report) -> str:
    """For people: the result; below it each finding, and what to do."""
    verdict = report.verdict
    if verdict.result == "sound":
        return f"{report.name}: sound"
    if verdict.result == "unverified":
        return f"{report.name}: not verified: {verdict.why}"
    lines = [f"{report.name}: damaged", *(f"  {one}" for one in verdict.findings)]
    remedies = dict.fromkeys(one.remedy for one in verdict.findings)
    return "\n".join([*lines, *(f"  what to do: {remedy}" for remedy in remedies)])


def _data(report: Report) -> dict[str, Any]:
    return {
        "name": report.name,
        "result": report.verdict.result,
        "why": report.verdict.why,
        "findings": [
            {"kind": one.kind, "where": one.where, "why": one.why} for one in report.verdict.findings
        ],
        "read_bytes": report.read_bytes,
    }
