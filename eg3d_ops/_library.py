"""The dispatcher library `torch.ops.eg3d_ops`, and what ops tell torch.compile.

The file of each op defines its schema here and registers its fake (shapes only) and autograd rules, all in
Python and all at import. A compiled library only adds the CPU or CUDA kernels when it is loaded.
"""

from collections.abc import Callable
from typing import TypeVar

import torch

F = TypeVar("F", bound=Callable[..., object])

NAMESPACE = "eg3d_ops"
LIBRARY = torch.library.Library(NAMESPACE, "DEF")


def define(schema: str) -> None:
    LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))


def constant_when_traced(function: F) -> F:
    """Mark a function that torch.compile calls while tracing, and whose result becomes a constant of the graph.

    This is the mark of torch.compiler.assume_constant_result. That decorator imports torch._dynamo, which takes two
    seconds in every process, whether it compiles or not.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
