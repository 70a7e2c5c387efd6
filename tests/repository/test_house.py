"""Tests of the order of the packages.

Imports point down, modules form no cycles, systems do not import each other, and no package below `mini` imports it.
Imports inside functions and under TYPE_CHECKING count too. docs/architecture.md explains the order.
"""

import ast
import re
from pathlib import Path

import pytest
from places import ROOT

# The packages from the lowest to the highest. A package imports only itself and packages before it.
ROOMS = (
    *("eg3d_ops", "core", "geometry", "weights", "eg3d", "miniworld", "text", "export", "guidance", "data"),
    *("metrics", "training", "prior", "systems", "pipeline", "baselines", "viewer", "cli", "mini"),
)
PACKAGE_BY_STRING = re.compile(r"^dreamportrait\.[a-z_.0-9]+$")  # "dreamportrait" alone names the installed package


def sources(root: Path) -> dict[str, Path]:
    """Return all modules of both packages by their dotted names."""
    found = {}
    for package in ("dreamportrait", "eg3d_ops"):
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, modules: dict[str, Path]) -> set[str]:
    """Return the modules of this repository that a module imports, anywhere in its code."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            whole = {alias.name: f"{base}.{alias.name}" for alias in node.names}
            found |= {full if full in modules else base for full in whole.values()}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and PACKAGE_BY_STRING.match(node.value):
            found.add(node.value)  # import_module("..."), resources.files("...")
    return {each for each in found if each.partition(".")[0] in ("dreamportrait", "eg3d_ops")} - {name}


def room(module: str) -> str | None:
    """Return the package that a module belongs to; None for `dreamportrait` itself, which only exports names."""
    parts = module.split(".")
    if parts[0] == "eg3d_ops":
        return "eg3d_ops"
    return None if len(parts) == 1 or parts[1] == "__main__" else parts[1]


def system(module: str) -> str | None:
    parts = module.split(".")
    return parts[2] if parts[:2] == ["dreamportrait", "systems"] and len(parts) > 2 else None


def violations(root: Path) -> list[str]:
    """Return every import that breaks a rule, and every cycle of modules."""
    modules = sources(root)
    graph = {name: imports(name, path, modules) for name, path in modules.items()}
    found = []
    for name, targets in graph.items():
        own = room(name)
        for target in sorted(targets):
            other = room(target)
            if own is None or other is None:
                continue
            if unknown := {own, other} - {*ROOMS}:
                found.append(f"{name} -> {target}: {', '.join(unknown)} has no place in the order")
            elif ROOMS.index(other) > ROOMS.index(own):
                found.append(f"{name} -> {target}: {other} is above {own}")
            elif system(name) and system(target) and system(name) != system(target):
                found.append(f"{name} -> {target}: systems never import each other")
    return found + [f"cycle: {' -> '.join(cycle)}" for cycle in cycles(graph)]


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return a cycle through each module that a depth-first search meets again on its own path."""
    found: list[list[str]] = []
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            found.append([*path[path.index(name) :], name])
        elif name not in done and name in graph:
            for target in sorted(graph[name]):
                # `dreamportrait` exports the pipeline lazily, and every module may read its version.
                if target != "dreamportrait":
                    visit(target, [*path, name])
            done.add(name)

    for name in graph:
        visit(name, [])
    return found


def test_the_order_holds():
    assert violations(ROOT) == []


def test_every_package_is_in_the_order():
    packages = {path.parent.name for path in (ROOT / "dreamportrait").glob("*/__init__.py")}
    assert packages | {"eg3d_ops", "pipeline"} == set(ROOMS)


PLANTED = {
    "upwards": ("core/planted.py", "from dreamportrait.metrics import scores\n", "metrics is above core"),
    "in a function": (
        "text/planted.py",
        "def load():\n    from dreamportrait.mini.models import from_pretrained\n",
        "mini is above text",
    ),
    "for types only": (
        "data/planted.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import dreamportrait.systems.dreamportrait.config\n",
        "systems is above data",
    ),
    "by a string": (
        "weights/planted.py",
        'from importlib import resources\nresources.files("dreamportrait.mini")\n',
        "mini is above weights",
    ),
    "another system": (
        "systems/planted/__init__.py",
        "from dreamportrait.systems.dreamportrait import mapper\n",
        "systems never import each other",
    ),
    "a new package": ("planted/__init__.py", "import dreamportrait.core.errors\n", "planted has no place in the order"),
    "an op": ("../eg3d_ops/planted.py", "import dreamportrait.core.errors\n", "core is above eg3d_ops"),
    "a cycle": (
        "core/planted.py",
        "from dreamportrait.core import planted_too\n",
        "cycle: dreamportrait.core.planted -> dreamportrait.core.planted_too -> dreamportrait.core.planted",
    ),
}


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_violation_is_found(tmp_path, case):
    place, text, expected = PLANTED[case]
    path = (tmp_path / "dreamportrait" / place).resolve()
    for known in ("metrics/scores", "mini/models", "systems/dreamportrait/config", "systems/dreamportrait/mapper"):
        module = tmp_path / "dreamportrait" / f"{known}.py"
        module.parent.mkdir(parents=True, exist_ok=True)
        module.touch()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if case == "a cycle":
        path.with_name("planted_too.py").write_text("def late():\n    from . import planted\n")
    assert any(expected in each for each in violations(tmp_path)), violations(tmp_path)
