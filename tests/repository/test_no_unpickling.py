"""Tests that no source of this repository unpickles data or executes data in another way.

The reader of official snapshots is no exception: it interprets pickles itself and imports no module that unpickles.
"""

import ast

import pytest
from places import ROOT

FOLDERS = ("dreamportrait", "eg3d_ops", "datasets", "eval", "benchmarks", "tools")
SOURCES = sorted([*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))])

# Modules that unpickle, or load code or objects from data.
MODULES = {
    *(
        "pickle",
        "_pickle",
        "cPickle",
        "pickle5",
        "pickletools",
        "shelve",
        "marshal",
        "copyreg",
        "dbm",
        "code",
        "codeop",
    ),
    *(
        "dill",
        "joblib",
        "cloudpickle",
        "jsonpickle",
        "hickle",
        "klepto",
        "torch.package",
        "torch.hub",
        "multiprocessing.reduction",
    ),
}
BUILTINS = {"eval", "exec", "compile", "__import__"}
YAML_LOADERS = {"load", "load_all", "full_load", "full_load_all", "unsafe_load", "unsafe_load_all"}


def dotted(node: ast.expr) -> str:
    """Return the expression `a.b.c` as text."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def is_constant(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def imported(node: ast.AST) -> dict[str, str]:
    """Return the full name of each local name that an import defines."""
    if isinstance(node, ast.Import):
        return {(alias.asname or alias.name): alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module:
        return {(alias.asname or alias.name): f"{node.module}.{alias.name}" for alias in node.names}
    return {}


def offences(source: str) -> list[str]:
    nodes = list(ast.walk(ast.parse(source)))
    meanings = {local: meaning for node in nodes for local, meaning in imported(node).items()}
    found = [
        f"import of {meaning}"
        for meaning in meanings.values()
        if any(meaning == module or meaning.startswith(module + ".") for module in MODULES)
    ]
    for node in nodes:
        if isinstance(node, ast.Name) and node.id in BUILTINS:
            found.append(node.id)
        if isinstance(node, ast.Attribute | ast.Name):
            first, _, rest = dotted(node).partition(".")
            name = meanings.get(first, first) + (f".{rest}" if rest else "")
            keywords = called_with(node, nodes)
            found += forbidden_name(name, keywords)
    return found


def called_with(function: ast.expr, nodes: list[ast.AST]) -> dict[str | None, ast.expr]:
    """Return the keywords with which this very expression is called; none if it is only mentioned."""
    calls = [node for node in nodes if isinstance(node, ast.Call) and node.func is function]
    return {keyword.arg: keyword.value for call in calls for keyword in call.keywords}


def forbidden_name(name: str, keywords: dict[str | None, ast.expr]) -> list[str]:
    module, _, function = name.rpartition(".")
    if name in ("torch.load", "torch.serialization.load") and not is_constant(keywords.get("weights_only"), True):
        return [f"{name} without weights_only=True"]
    if "allow_pickle" in keywords and not is_constant(keywords["allow_pickle"], False):
        return [f"{name} with allow_pickle"]
    if module == "yaml" and function in YAML_LOADERS:
        return [name]
    unsafe = function in (
        "read_pickle",
        "to_pickle",
        "Unpickler",
        "_load_from_bytes",
        "add_safe_globals",
        "safe_globals",
    )
    return [name] * unsafe


OFFENCES = [
    "import pickle",
    "import pickle as p",
    "from pickle import loads",
    "def f():\n    import _pickle",
    "import torch.package.package_importer",
    "from torch import hub",
    "import dill, os",
    "x = eval('1')",
    "f = exec",
    "compile('1', '', 'eval')",
    "__import__(name)",
    "import torch\ntorch.load('x')",
    "import torch\ntorch.load('x', weights_only=False)",
    "import torch\ntorch.load('x', weights_only=flag)",
    "import torch\nload = torch.load",
    "from torch import load\nload('x')",
    "from torch import load as read\nread('x')",
    "import numpy as np\nnp.load('x', allow_pickle=True)",
    "import numpy as np\nnp.load('x', allow_pickle=flag)",
    "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
    "from yaml import unsafe_load\nunsafe_load(text)",
    "import pandas as pd\npd.read_pickle('x')",
    "import torch\ntorch.storage._load_from_bytes(b)",
]
FINE = [
    "import torch\ntorch.load('x', weights_only=True)",
    "import torch\ntorch.compile(model)\nmodel.eval()",
    "import re\nre.compile('x')",
    "import numpy as np\nnp.load('x')\nnp.load('x', allow_pickle=False)",
    "import yaml\nyaml.safe_load(text)",
    "import ast\nast.literal_eval(text)",
    "from safetensors.torch import load_file\nload_file('x')",
]


@pytest.mark.parametrize("source", OFFENCES)
def test_offences_are_found(source):
    assert offences(source)


@pytest.mark.parametrize("source", FINE)
def test_innocent_code_is_not_accused(source):
    assert offences(source) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source(path):
    assert offences(path.read_text(encoding="utf-8")) == []


def test_the_reader_is_among_the_sources():
    assert ROOT / "dreamportrait" / "weights" / "pickle_reader.py" in SOURCES
