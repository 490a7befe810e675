"""Imports point one way, and rooms of one layer never import each other."""

import ast
from collections.abc import Iterable
from pathlib import Path

from pypiserver_ng.server.cycle import SENDFILE
from pypiserver_ng.web import sending

HOUSE = Path(__file__).parents[1] / "pypiserver_ng"

LAYERS = (
    ("__main__",),
    ("cli",),
    # The process's own matters: only the command line knows them, and they know no room.
    ("app", "server", "workers", "logs"),
    ("web",),
    ("index",),
    ("catalog", "storage", "upstream", "auth"),
    ("config", "filenames", "metadata", "archive", "policy", "pages", "attestations", "counters", "client_config"),
    ("model",),
    ("errors",),
)
RANK = {room: number for number, layer in enumerate(LAYERS) for room in layer}
ALONE = {"server", "workers", "logs"}


def imported_rooms(source: str) -> set[str]:
    """The rooms that a module names in its imports, at its top or inside a function."""
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        rooms.update(name.split(".")[1] for name in names if name.startswith(f"{HOUSE.name}."))
    return rooms - {"__version__"}


def find_violations(edges: Iterable[tuple[str, str]]) -> list[str]:
    return [
        f"{importer} imports {imported}"
        for importer, imported in edges
        if importer != imported
        and (
            RANK[importer] >= RANK[imported]
            or importer in ALONE
            or (imported in ALONE and importer != "cli")
            or (importer == "__main__" and imported != "cli")
        )
    ]


def test_what_two_rooms_say_to_each_other_has_one_name() -> None:
    """The server does not know the application, nor that the server: the name of their extension is written twice."""
    assert sending._SENDFILE == SENDFILE


def test_imports_point_one_way() -> None:
    """Every module of every room imports lower layers only; a new room has to be given its layer first."""
    modules = {path: path.relative_to(HOUSE).parts[0].removesuffix(".py") for path in HOUSE.rglob("*.py")}
    edges = {(room, imported) for path, room in modules.items() for imported in imported_rooms(path.read_text())}
    assert {"cli", "app", "web", "index", "errors"} < set(modules.values())
    assert sorted(find_violations(edges)) == []


def test_a_planted_violation_is_found() -> None:
    """Upwards, sideways, and past the named exceptions."""
    source = "from pypiserver_ng import pages\ndef f():\n    import pypiserver_ng.index.intake\n"
    assert imported_rooms(source) == {"pages", "index"}
    planted = [("catalog", "index"), ("catalog", "storage"), ("web", "logs"), ("server", "errors"), ("web", "model")]
    assert find_violations(planted) == [f"{one} imports {other}" for one, other in planted[:-1]]
