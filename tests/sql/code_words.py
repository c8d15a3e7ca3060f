"""The words that the program writes into its database, read from its source.

A word is what stands, as a literal or as a constant of its module, where a code or a reason goes:
in an argument of that name, whatever is called, and in the transitions that the store records.
"""

from __future__ import annotations

import ast
import importlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType

_ROOT: Final = Path(__file__).resolve().parents[2]


def error_codes() -> set[str]:
    """Return every word that may become an `error_code`."""
    return _given_as({"error_code", "code"})


def block_reasons() -> set[str]:
    """Return every word that may become the `reason` of a block."""
    return _given_as({"reason"}, of={"Trouble", "Blocked", "DiskError"})


def event_reasons() -> set[str]:
    """Return every `reason` of an event that is no error code."""
    found = _given_as(
        {"reason"}, of={"PutBack", "DiskError", "_change", "record_selected", "HookResult"}
    )
    for path in (_ROOT / "downloader/store").glob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Tuple) and any(_is_state(one) for one in node.elts):
                found |= {word for one in node.elts for word in _literals(one, {})}
            if isinstance(node, ast.Constant) and "INSERT INTO run_events" in str(node.value):
                found.add(str(node.value).rpartition("'pending', '")[2].partition("'")[0])
    return found


def _is_state(node: ast.expr) -> bool:
    """Return whether an expression is `State.DONE`, `State(…)` or the like."""
    name = (
        node.value
        if isinstance(node, ast.Attribute)
        else node.func
        if isinstance(node, ast.Call)
        else None
    )
    return isinstance(name, ast.Name) and name.id == "State"


def _given_as(names: set[str], *, of: set[str] | None = None) -> set[str]:
    """Return the words given for parameters of these names, by position or by name."""
    parameters = _parameters()
    found: set[str] = set()
    for module, tree in _sources():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(
                node.func, ast.Name | ast.Attribute
            ):
                continue
            called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if of is not None and called not in of:
                continue
            given = dict(zip(parameters.get(called, []), node.args, strict=False))
            given |= {one.arg: one.value for one in node.keywords if one.arg is not None}
            for name in names & set(given):
                found |= set(_literals(given[name], vars(module)))
    return found


def _literals(node: ast.expr, constants: Mapping[str, object]) -> Iterator[str]:
    """Yield the words of an expression: literals, and what a module's constant stands for."""
    if isinstance(node, ast.Subscript):  # the key of a table is no word
        yield from _literals(node.value, constants)
        return
    if isinstance(node, ast.IfExp):
        yield from _literals(node.body, constants)
        yield from _literals(node.orelse, constants)
        return
    if isinstance(node, ast.Call):  # `table.get(key, "word")`
        for one in (node.func, *node.args[1:]):
            yield from _literals(one, constants)
        return
    if isinstance(node, ast.Attribute):
        yield from _literals(node.value, constants)
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Name):
        value = constants.get(node.id)
        yield from [value] if isinstance(value, str) else []
        yield from value.values() if isinstance(value, dict) else []


@cache
def _sources() -> list[tuple[ModuleType, ast.Module]]:
    """Return the program's own modules with their source; the simulator is somebody else."""
    found = []
    for path in sorted((_ROOT / "downloader").rglob("*.py")):
        parts = path.relative_to(_ROOT).with_suffix("").parts
        if "simulator" not in parts and "cli" not in parts:
            name = ".".join(parts).removesuffix(".__init__")
            found.append((importlib.import_module(name), ast.parse(path.read_text("utf-8"))))
    return found


@cache
def _parameters() -> dict[str, list[str]]:
    """Return the names of what each class and function of the program takes, in order."""
    found: dict[str, list[str]] = {}
    for _, tree in _sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                own = [one.arg for one in node.args.args if one.arg != "self"]
                found.setdefault(node.name, own)
            if isinstance(node, ast.ClassDef):
                own = [
                    one.target.id
                    for one in node.body
                    if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
                ]
                for one in node.body:
                    if isinstance(one, ast.FunctionDef) and one.name == "__init__":
                        own = [argument.arg for argument in one.args.args[1:]]
                found[node.name] = own
    return found
