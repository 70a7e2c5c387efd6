"""The arithmetic of float32 on a GPU, which is set here and nowhere else, and recorded with every measurement.

Tensor cores can multiply float32 numbers as TF32, with 10 bits of mantissa instead of 23. By default PyTorch allows
that for convolutions, whose errors of about 1e-3 then exceed every tolerance of this project. Who wants fast
arithmetic asks for bfloat16 or float16 instead, which are faster than TF32.
"""

import torch


def exact_float32() -> None:
    """Forbid TF32 in convolutions and matrix products of this process."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def float32_rule() -> str:
    """Return "exact", or where float32 may be rounded to TF32 on a GPU: "tf32 in convolutions, matrix products"."""
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    allowed = ["convolutions"] * convolutions + ["matrix products"] * products
    return f"tf32 in {', '.join(allowed)}" if allowed else "exact"
