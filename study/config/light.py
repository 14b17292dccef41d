"""Our own modules without what is heavy in them: config classes with their fields, limits and checks, torch
not loaded.

A wrong number should be refused at once, but importing torch takes 4 s and torchmetrics 16 s. So a module is
read statement by statement: what needs only the standard library, pydantic or other light parts of ours is
run, the rest is left out. Where a class or its check turns out to need more, the caller takes the real
module."""

import ast
import sys
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OURS = "fovea"
LIGHT = {*sys.stdlib_module_names, "pydantic", "annotated_types", "typing_extensions"}
KEPT = {"property", "cached_property", "classmethod", "staticmethod", "field_validator", "model_validator"}
_read: dict[
    str, dict[str, Any]
] = {}  # a module that imports itself in a circle finds what there is of it so far


def light(target: str) -> Any:
    """What `module.name` is, as far as it can be had without anything heavy; None otherwise."""
    module, name = target.rsplit(".", 1)
    return names(module).get(name)


def names(module: str) -> dict[str, Any]:
    if module not in _read:
        space = _read[module] = {"__name__": f"light.{module}", "__file__": str(_file(module))}
        for statement in _tree(module):
            _run(statement, space)
    return _read[module]


def _file(module: str) -> Path | None:
    path = ROOT / module.removeprefix("fovea.").replace(".", "/")
    files = [f for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()]
    return files[0] if files and module.split(".")[0] == OURS else None


@cache
def _tree(module: str) -> list[ast.stmt]:
    file = _file(module)
    return ast.parse(file.read_text("utf-8")).body if file else []


def _run(statement: ast.stmt, space: dict[str, Any]) -> None:
    if isinstance(statement, ast.ImportFrom) and (statement.module or "").split(".")[0] == OURS:
        for alias in statement.names:
            found = names(str(statement.module)).get(alias.name)
            if found is not None:
                space[alias.asname or alias.name] = found
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.FunctionDef):
            _bare(node)
    if _is_light(statement):
        try:
            exec(compile(ast.Module([statement], []), str(space["__file__"]), "exec"), space)
        except Exception:  # it needs something heavy: it is left out
            return


def _is_light(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Import):
        return all(alias.name.split(".")[0] in LIGHT for alias in statement.names)
    if isinstance(statement, ast.ImportFrom):
        return (statement.module or "").split(".")[0] in LIGHT
    return isinstance(statement, ast.Assign | ast.AnnAssign | ast.ClassDef | ast.FunctionDef)


def _bare(function: ast.FunctionDef) -> None:
    """Annotations and decorators are evaluated where a function is defined: keep those that are light."""
    marks = {d: {n.id for n in ast.walk(d) if isinstance(n, ast.Name)} for d in function.decorator_list}
    function.decorator_list = [d for d in function.decorator_list if marks[d] & KEPT]
    function.returns = None
    a = function.args
    for argument in [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg]:
        if argument is not None:
            argument.annotation = None
