"""Who imports whom, read from the code: data flows one way, and nothing imports in a circle."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("eval", "methods", "models", "study")
STORE = (
    *("files", "picture", "streams", "records", "record_files", "presence", "workers"),
    *("store", "stored"),
)
LAYERS = (("config",), STORE, ("plan",), ("run",), ("analysis",), ("report",), ("commands",))
LAYER = {f"study.{part}": i for i, layer in enumerate(LAYERS) for part in layer}
KNOWS = {
    "eval": set(),
    "models": set(),
    "methods": {"models"},
    "study.config": set(),
    "study.plan": {"models"},  # by which packages weights are quantised
    "study.stored": {"eval"},
    "study.run": {"eval", "methods", "models"},
    "study.analysis": {"eval"},
    "study.report": {"eval"},
}


def module_of(file: Path) -> str:
    """`fovea.eval.fid` of eval/fid.py, `fovea.eval` of eval/__init__.py."""
    place = (file.parent if file.stem == "__init__" else file.with_suffix("")).relative_to(ROOT)
    return ".".join(("fovea", *place.parts))


FILES = {module_of(file): file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))}


def nodes(tree: ast.AST, types: bool = False) -> Iterator[ast.AST]:
    """All below a node, inside functions too; what only type checkers see is left out unless `types`."""
    for child in ast.iter_child_nodes(tree):
        if types or not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield child
            yield from nodes(child, types)


def imported(tree: ast.AST, types: bool = False) -> Iterator[tuple[str, str]]:
    """Module and name of every import; the name is empty where a module is imported whole."""
    for node in nodes(tree, types):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"a relative import in line {node.lineno}"
            yield from ((node.module or "", alias.name) for alias in node.names)


def home(module: str, name: str) -> str:
    """The file that a name is written in, also where its package passes it on when it is asked for."""
    if f"{module}.{name}" in FILES:
        return f"{module}.{name}"
    if module in FILES and FILES[module].name == "__init__.py":
        passed_on = {
            name: module for module, name in imported(ast.parse(FILES[module].read_text()), types=True)
        }
        return passed_on.get(name, module)
    return module


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    """Of every file, those of ours that it imports."""
    trees = {module: ast.parse(file.read_text()) for module, file in FILES.items()}
    found = {module: {home(*pair) for pair in imported(tree)} for module, tree in trees.items()}
    return {module: others & FILES.keys() - {module} for module, others in found.items()}


def part(module: str) -> str:
    """`study.plan` of fovea.study.plan.cells, `eval` of fovea.eval.fid."""
    _, package, *rest = module.split(".")
    return f"study.{rest[0]}" if package == "study" and rest else package


def test_all_of_study_has_a_layer():
    assert {part(module) for module in FILES if part(module).startswith("study.")} == LAYER.keys()


def test_the_graph_sees_imports_inside_functions_and_through_packages(graph):
    assert "fovea.study.run.share" in graph["fovea.study.run.launchers"]
    assert "fovea.models.adapters" in graph["fovea.study.run.execute"]


def test_no_file_of_study_imports_upward(graph):
    upward = [
        f"{module} imports {other}"
        for module, others in graph.items()
        for other in others
        if LAYER.get(part(other), -1) > LAYER.get(part(module), len(LAYERS))
    ]
    assert not upward


def test_nothing_imports_in_a_circle(graph):
    order = [*TopologicalSorter(graph).static_order()]  # CycleError names its files
    assert set(order) == FILES.keys()


def test_a_part_knows_no_more_than_it_needs(graph):
    beyond = [
        f"{module} imports {other}"
        for module, others in graph.items()
        for other in others
        if part(other) != part(module)
        and part(other) not in LAYER
        and part(other) not in KNOWS.get(part(module), set())
    ]
    assert not beyond
    assert not [
        f"{a} imports {b}" for a in graph for b in graph[a] if part(b) in LAYER and part(a) not in LAYER
    ]
