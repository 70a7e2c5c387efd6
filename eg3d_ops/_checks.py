"""Argument checks shared by the compiled ops and their reference implementations: both get checked arguments only.

Every message states the argument, its value, the rule and, where one exists, the remedy.
"""

from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
KERNEL_DTYPES = {  # dtypes that the compiled pointwise ops and filters take, per device type
    "cpu": (torch.float32, torch.float64),
    "cuda": FLOATING,
}


def check_tensor(name: str, value: object, ndim: int | tuple[int, ...] | None = None, shape: str = "") -> Tensor:
    """Return `value` if it is a floating-point tensor of the given rank; otherwise raise TypeError or ValueError.

    `shape` names the axes in the message, e.g. "[N, C, H, W]".
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if value.dtype not in FLOATING:
        raise TypeError(f"{name} must be floating point, got {value.dtype}; convert it with {name}.float()")
    ranks = (ndim,) if isinstance(ndim, int) else ndim
    if ranks is not None and value.ndim not in ranks:
        wanted = f"{name} must have rank {' or '.join(map(str, ranks))} {shape}".rstrip()
        raise ValueError(f"{wanted}, got shape {list(value.shape)}")
    return value


def check_shape(name: str, value: Tensor, shape: Sequence[int], why: str) -> Tensor:
    """Return `value` if it has exactly this shape; otherwise raise ValueError.

    `why` explains the shape in the message, e.g. "[N, R, 3] as origins".
    """
    if list(value.shape) != list(shape):
        raise ValueError(f"{name} must have shape {list(shape)} ({why}), got {list(value.shape)}")
    return value


def check_device(name: str, value: Tensor, other: str, reference: Tensor) -> Tensor:
    if value.device != reference.device:
        raise ValueError(f"{name} is on {value.device} but {other} is on {reference.device}; move one with .to(device)")
    return value


def check_int(name: str, value: object, minimum: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if minimum is not None and value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return value


def check_number(name: str, value: object) -> float:
    """Return `value` as a float. Raise TypeError or ValueError unless it is a finite real number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    number = float(value)
    if not (-float("inf") < number < float("inf")):
        raise ValueError(f"{name} must be finite, got {value}")
    return number


def check_kernel_dtype(op: str, x: Tensor, impl: str) -> bool:
    """Return whether compiled code exists for the dtype of x. If not, raise TypeError for impl="compiled"."""
    supported = KERNEL_DTYPES.get(x.device.type, ())
    if impl == "compiled" and x.dtype not in supported:
        takes = f"compiled {op} on {x.device.type} takes {', '.join(map(str, supported))}"
        raise TypeError(f"x is {x.dtype}, but {takes}; use impl='auto' or convert x")
    return x.dtype in supported
