"""Reference numbers from tests/golden/<name>.json, with tensors, if any, in <name>.safetensors.

They were obtained by running the official EG3D code on a CPU in float32; each json says how.
"""

import functools
import json
from dataclasses import dataclass
from typing import Any

import safetensors.torch
from places import GOLDEN
from torch import Tensor


@dataclass(frozen=True)
class Golden:
    info: dict[str, Any]  # the json
    tensors: dict[str, Tensor]  # "<case>/<what>" -> tensor; shared between tests, so never modify one

    def group(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors under `prefix/`, without the prefix."""
        start = prefix + "/"
        return {key.removeprefix(start): value for key, value in self.tensors.items() if key.startswith(start)}


@functools.cache
def load(name: str) -> Golden:
    """Load one pair of files, e.g. `load("renderer")`."""
    info = json.loads((GOLDEN / f"{name}.json").read_text())
    tensors = GOLDEN / f"{name}.safetensors"
    return Golden(info, safetensors.torch.load_file(tensors) if tensors.exists() else {})


@dataclass(frozen=True)
class OpCase:
    """One case of ops.json. setup_filter was called with `raw_filter` and the arguments `setup`."""

    name: str
    op: str
    args: dict[str, Any]
    raw_filter: Any
    setup: dict[str, Any]
    tensors: dict[str, Tensor]

    def __str__(self) -> str:
        return self.name


def op_cases(op: str) -> list[OpCase]:
    """Return all cases of one op, for `pytest.mark.parametrize("case", op_cases("upfirdn2d"), ids=str)`."""
    golden = load("ops")
    found = [
        OpCase(case["name"], op, case["args"], case.get("f_raw"), case.get("setup", {}), golden.group(case["name"]))
        for case in golden.info["cases"]
        if case["op"] == op
    ]
    if not found:
        raise ValueError(f"op={op!r}: ops.json has no such cases")
    return found
