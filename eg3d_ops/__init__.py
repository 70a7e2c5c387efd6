"""Fast, differentiable operations for tri-plane GANs, each beside a plain PyTorch twin.

Importing this package compiles and loads nothing; see `eg3d_ops._backend` for what happens at first use.
"""

from ._backend import backend, cpu_isa, loaded_libraries, set_backend
from .bias_act import bias_act
from .filters import downsample2d, filter2d, setup_filter, upsample2d
from .upfirdn2d import upfirdn2d

__all__ = [
    "backend",
    "bias_act",
    "cpu_isa",
    "downsample2d",
    "filter2d",
    "loaded_libraries",
    "set_backend",
    "setup_filter",
    "upfirdn2d",
    "upsample2d",
]
