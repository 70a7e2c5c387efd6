"""Loading of the repository's scripts, which are not in a package."""

import importlib.util
from types import ModuleType

from places import ROOT


def load_script(path: str) -> ModuleType:
    """Return a script, given its path from the root of the repository, as a module."""
    spec = importlib.util.spec_from_file_location(path.replace("/", "_").removesuffix(".py"), ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
