"""Compare bias_act and upfirdn2d with their twins, at the shapes of the FFHQ-512 networks with batch size 1.

`python -m benchmarks.ops` runs it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import Row, side_by_side
from dreamportrait.core.timing import kernel_seconds
from eg3d_ops.bias_act import bias_act
from eg3d_ops.filters import setup_filter
from eg3d_ops.upfirdn2d import upfirdn2d

Op = Callable[..., Tensor]
Case = tuple[str, list[int], dict[str, Any]]  # name, shape of x, options

BIAS_ACT: list[Case] = [  # after the convolutions of synthesis layers
    ("bias_act", shape, {"act": "lrelu", "clamp": 256})
    for shape in ([1, 512, 64, 64], [1, 256, 128, 128], [1, 128, 256, 256], [1, 64, 512, 512])
]
BLUR = {"padding": 1, "gain": 4}
UP = {"up": 2, "padding": [2, 1, 2, 1], "gain": 4}
UPFIRDN2D: list[Case] = [
    ("blur", [1, 512, 65, 65], BLUR),  # after transposed convolutions
    ("blur", [1, 256, 129, 129], BLUR),
    ("blur", [1, 128, 257, 257], BLUR),
    ("blur", [1, 64, 513, 513], BLUR),
    ("up 2", [1, 96, 128, 128], UP),  # planes and images
    ("up 2", [1, 3, 256, 256], UP),
    ("down 2", [1, 64, 512, 512], {"down": 2, "padding": 1}),  # the discriminator's shortcuts
]


def pass_of(op: Op, inputs: list[Tensor], options: dict[str, Any], backward: bool) -> Callable[[], object]:
    """Return a function that runs a forward pass, or forward and backward for the inputs that require gradients."""
    with torch.no_grad():
        dy = torch.ones_like(op(*inputs, **options))
    wanted = [t for t in inputs if t.requires_grad]

    def forward() -> object:
        with torch.no_grad():
            return op(*inputs, **options)

    return (lambda: torch.autograd.grad(op(*inputs, **options), wanted, dy)) if backward else forward


def run(device: str = "cpu", repeats: int = 5) -> list[Row]:
    """Measure both implementations in turn, forward alone and forward with backward."""
    f = setup_filter([1, 3, 3, 1], device=device)
    rows: list[Row] = []
    for dtype in (torch.float32,) if device == "cpu" else (torch.float32, torch.float16):
        for name, shape, options in BIAS_ACT + UPFIRDN2D:
            x = torch.randn(shape, device=device, dtype=dtype).requires_grad_()
            b = torch.randn(shape[1], device=device, dtype=dtype).requires_grad_()
            op, inputs = (bias_act, [x, b]) if name == "bias_act" else (upfirdn2d, [x, f])
            for backward in (False, True):
                reference, compiled = (
                    pass_of(op, inputs, {**options, "impl": impl}, backward) for impl in ("reference", "compiled")
                )
                case = f"{name}, {'forward+backward' if backward else 'forward'}, {dtype}".replace("torch.", "")
                what = {"op": op.__name__, "case": case, "shape": shape}
                rows.append(what | side_by_side(reference, compiled, repeats, device, clock=kernel_seconds))
    return rows
