"""Which events the code can write to the log: found in its source, by ast.

Found are

    log.warning("event", field=...)            also self._context.log, and log.debug if ... else log.warning
    Log("warning", "event", {...})             the instruction of a pure module; also Log.of(...)
    Notes("event", ...)                        a warning, and an info "event_over"

The event, and the level of a Log, may be a constant, `one if ... else other`, or a name that gets such a
value in the same function.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "stargate_gate"
LEVELS = {name: name for name in ("debug", "info", "warning", "error", "critical")} | {"exception": "error"}


@dataclass(frozen=True)
class Logged:
    """One place that writes one event with one level. `fields` is None where they are not constants."""

    event: str
    level: str
    fields: frozenset[str] | None
    where: str


def logged_events() -> list[Logged]:
    """Every event of the package.

    Raises:
        AssertionError: a call whose event cannot be told. Write it as above, or extend this module.
    """
    found: list[Logged] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                found += _of_function(function, str(path.relative_to(PACKAGE)))
    return found


def _of_function(function: ast.FunctionDef | ast.AsyncFunctionDef, path: str) -> Iterator[Logged]:
    for node in _own_nodes(function):
        if isinstance(node, ast.Call):
            where = f"{path}:{node.lineno}"
            events, levels = _event_and_level(node, function)
            if events is None or levels is None:
                continue
            assert events, f"{where}: the event cannot be told"
            assert levels, f"{where}: the level cannot be told"
            for event in events:
                for level in levels:
                    yield Logged(event, LEVELS[level], _fields(node), where)


def _event_and_level(
    call: ast.Call, function: ast.AST
) -> tuple[frozenset[str] | None, frozenset[str] | None]:
    """None: it is no call that logs. Empty: it is one, and what it logs cannot be told."""
    levels = _levels(call, function)
    if levels is None:
        return None, None
    event = call.args[1 if ast.unparse(call.func) in INSTRUCTIONS else 0]
    return _texts(event, function), levels


def _levels(call: ast.Call, function: ast.AST) -> frozenset[str] | None:
    """The levels that a call may log with; None: it does not log, or passes on what another call says."""
    name = ast.unparse(call.func)
    receiver, _, method = name.rpartition(".")
    levels: frozenset[str] | None = None
    if method in LEVELS and receiver.rpartition(".")[2] == "log" and call.args:
        # replication/notes.py writes what the constructor of Notes says
        passed_on = ast.unparse(call.args[0]) in {"self._event", "self._over"}
        levels = None if passed_on else frozenset({method})
    elif name in INSTRUCTIONS and [ast.unparse(one) for one in call.args[:2]] not in PASSED_ON:
        levels = _texts(call.args[0], function)
    elif name == "Notes":
        levels = frozenset({"warning"})
    elif isinstance(call.func, ast.Name):
        levels = _reporters(function).get(name)
    return levels


INSTRUCTIONS = {"Log", "Log.of", "do.Log", "do.Log.of"}
PASSED_ON = (["'info'", "event"], ["'warning'", "event"], ["'error'", "event"], ["severity", "event"])


def _texts(node: ast.expr, function: ast.AST) -> frozenset[str]:
    """The constants that an expression can be."""
    match node:
        case ast.Constant(value=str() as text):
            return frozenset({text})
        case ast.IfExp(body=body, orelse=orelse):
            return _texts(body, function) | _texts(orelse, function)
        case ast.Name(id=name):
            return frozenset().union(*(_texts(value, function) for value in _assigned(name, function)))
    return frozenset()


@cache
def _reporters(function: ast.AST) -> Mapping[str, frozenset[str]]:
    """The names in a function that stand for methods of a logger, and which ones."""
    found = {}
    for node in ast.walk(function):
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                attributes = [one for one in ast.walk(value) if isinstance(one, ast.Attribute)]
                levels = {one.attr for one in attributes if ast.unparse(one.value) == "log"} & LEVELS.keys()
                if levels:
                    found[name] = frozenset(levels)
    return found


def _assigned(name: str, function: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
                yield value
            case ast.AnnAssign(target=ast.Name(id=found), value=ast.expr() as value) if found == name:
                yield value


def _fields(call: ast.Call) -> frozenset[str] | None:
    if any(keyword.arg is None for keyword in call.keywords):
        return None
    found = {keyword.arg for keyword in call.keywords if keyword.arg is not None}
    for argument in call.args[2:]:
        if not isinstance(argument, ast.Dict):
            return None
        found |= {key.value for key in argument.keys if isinstance(key, ast.Constant)}
    return frozenset(found - {"exc_info"})


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """Everything in a function that is not in a function inside it."""
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
            yield from _own_nodes(node)
