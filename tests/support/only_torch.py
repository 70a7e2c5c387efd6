"""Run a module as on a machine that has only what the ops need: PyTorch, ninja and filelock. Their tests need pytest,
hypothesis, and for stored numbers numpy and safetensors; those of whole networks need einops.

    python tests/support/only_torch.py pytest -q tests/ops
    python tests/support/only_torch.py benchmarks.ops --device cuda

Every other installed package is refused, as if it were not there.
"""

import contextlib
import importlib
import importlib.metadata
import os
import re
import runpy
import sys
from collections.abc import Iterable
from typing import Any

NEEDED = ("torch", "ninja", "filelock", "pytest", "hypothesis", "numpy", "safetensors", "einops")
OURS = ("eg3d_ops", "dreamportrait", "benchmarks")


class Without:
    """Finds what another finder finds, except for modules of other packages."""

    def __init__(self, finder: Any, names: set[str]) -> None:
        self.finder, self.names = finder, names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return None if name.partition(".")[0] in self.names else self.finder.find_spec(name, path, target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.finder, name)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def with_requirements(names: Iterable[str]) -> set[str]:
    """Return the distributions that these need, themselves included."""
    found: set[str] = set()
    waiting = [normal(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            needed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # for another platform
            continue
        waiting += [normal(re.split(r"[^\w.-]", line)[0]) for line in needed if "extra ==" not in line]
    return found


def others() -> set[str]:
    """Return the names of all installed modules that do not belong to the needed packages."""
    kept = with_requirements(NEEDED)
    owners = importlib.metadata.packages_distributions()
    return {module for module, by in owners.items() if not {normal(name) for name in by} & kept} - set(OURS)


if __name__ == "__main__":
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # plugins are such other packages
    refused = others()
    # PyTorch's compiler imports setuptools, which carries packages under names that other distributions also have.
    with contextlib.suppress(ImportError):
        importlib.import_module("setuptools")
    sys.meta_path[:] = [Without(finder, refused) for finder in sys.meta_path]  # type: ignore[list-item]
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
