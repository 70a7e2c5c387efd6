"""The dispatcher library `torch.ops.eg3d_ops`.

Each op's file defines its schema here and registers its fake (shapes only) and autograd rules, all in
Python and all at import; a compiled library, when one is loaded, only adds the CPU or CUDA kernels.
"""

import torch

NAMESPACE = "eg3d_ops"
LIBRARY = torch.library.Library(NAMESPACE, "DEF")


def define(schema: str) -> None:
    LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
