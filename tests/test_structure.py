"""The house keeps its order: imports point one way, files stay small."""

import ast
import hashlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pipeline"

ORDER = [
    {"errors"},
    {"agreement", "geometry", "document"},
    {"compiled"},
    {"patches", "pixels"},
    {"given", "grid", "operation", "room"},
    {"padded"},
    {"layers", "kernels"},
    {"generated", "sections"},
    {"features", "stack", "kinds"},
    {"consistency", "tiling"},
    {"config", "forecast", "describe"},
    {"storage", "clusters"},
    {"pictures"},
    {"ingesting", "exporting"},
    {"reading", "tables"},
    {"background", "batch", "kept"},
    {"planning", "labels"},
    {"planner"},
    {"execute", "labelled"},
    {"job", "inspection", "status"},
    {"api", "verifying"},
    {"fitting", "verification", "sheet", "viewing"},
    {"commands"},
    {"cli"},
]
"""The rooms from the ground up; a room imports from lower ones, and from its own."""

LARGEST = 300


def room(module: str) -> str:
    return module.split(".")[1]


def imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, those for type checkers aside."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name} imports relatively"
            found.add(node.module or "")
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("pipeline.")}


FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def test_every_room_has_its_place() -> None:
    rooms = {p.relative_to(PACKAGE).parts[0].removesuffix(".py") for p in FILES}
    assert rooms == set().union(*ORDER)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    height = {name: level for level, names in enumerate(ORDER) for name in names}
    mine = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    wrong = [m for m in imports(path) if room(m) != mine and height[room(m)] >= height[mine]]
    assert not wrong, f"{path.name} imports {wrong}"


@pytest.mark.parametrize(
    "path", [*FILES, *sorted((ROOT / "tests").glob("*.py"))], ids=lambda p: str(p.relative_to(ROOT))
)
def test_files_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LARGEST


def test_compiled_files_name_what_their_functions_are_made_with():
    """Else Numba would go on with a copy of a function that calls one of another file, when that one has changed."""
    found = {path.stem: path for path in (PACKAGE / "compiled").glob("*.py")}
    for name, path in found.items():
        text = path.read_text()
        if "@njit" not in text:
            continue
        others = sorted(module.rpartition(".")[2] for module in imports(path) if room(module) == "compiled")
        named = {other: hashlib.sha256(found[other].read_bytes()).hexdigest()[:12] for other in others}
        told = ", ".join(f'"{other}": "{digest}"' for other, digest in named.items())
        assert not others or f"MADE_WITH = {{{told}}}" in text, f"{name}.py: write MADE_WITH = {{{told}}}"
