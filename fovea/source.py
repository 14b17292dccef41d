"""The source code of modules, read without running it: their imports from this package, and their syntax."""

import ast
from collections.abc import Collection
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent  # the package; in a checkout it contains links


def file_of(module: str) -> Path | None:
    path = HERE / module.removeprefix("fovea.").replace(".", "/")
    return next((f for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()), None)


def source(module: str) -> Path:
    """Return the source file of a module. Raises FileNotFoundError if there is none."""
    file = file_of(module)
    if file is None:
        raise FileNotFoundError(f"{module} has no source that tells it from another version of it")
    return file


def followed(module: str, packages: tuple[str, ...], left_out: Collection[str] = ()) -> set[str]:
    """Return the module and all that it imports from these packages, directly or indirectly.

    A package's __init__.py is not included, as it only re-exports names.
    """
    source(module)
    found: set[str] = set()
    _follow(module, packages, left_out, found)
    return found


def _follow(module: str, packages: tuple[str, ...], left_out: Collection[str], found: set[str]) -> None:
    file = file_of(module)
    if module in found or module in left_out or file is None or file.name == "__init__.py":
        return
    found.add(module)
    for package, name in imported(file):
        if package.startswith(packages):
            _follow(package, packages, left_out, found)
            _follow(home(f"{package}.{name}"), packages, left_out, found)


def home(name: str) -> str:
    """Return the module that defines a name: fovea.methods.RAS -> fovea.methods.ras; for a module, itself."""
    module, _, own = name.rpartition(".")
    file = file_of(module)
    if file_of(name) is not None or file is None:
        return name
    return next((source for source, given in imported(file) if given == own), module)


@cache
def imported(file: Path) -> list[tuple[str, str]]:
    """Return module and name of each `from module import name`.

    Imports under TYPE_CHECKING count only in an __init__.py, where they name what is imported lazily.
    """
    tree = ast.parse(file.read_text("utf-8"))
    types = [
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    ]
    skipped = set() if file.name == "__init__.py" else set(map(id, types))
    return [
        (str(node.module), alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and id(node) not in skipped
        for alias in node.names
    ]


@cache
def syntax(file: Path) -> str:
    """Return the syntax tree as text, without comments, docstrings and layout."""
    tree = ast.parse(file.read_text("utf-8"))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:]
    return ast.dump(tree)
