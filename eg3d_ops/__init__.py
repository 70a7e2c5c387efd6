"""Fast, differentiable operations for tri-plane GANs. Each has a reference implementation in plain PyTorch.

Importing this package compiles and loads nothing; `eg3d_ops._backend` describes what happens at the first use.
"""

from ._backend import backend, cpu_isa, loaded_libraries, set_backend
from .bias_act import bias_act
from .filters import downsample2d, filter2d, setup_filter, upsample2d
from .marching import RenderedRays
from .planes import PLANE_AXES, Decoder, decode, sample_planes
from .rasterize import rasterize
from .render_rays import render_rays
from .upfirdn2d import upfirdn2d

__all__ = [
    "PLANE_AXES",
    "Decoder",
    "RenderedRays",
    "backend",
    "bias_act",
    "cpu_isa",
    "decode",
    "downsample2d",
    "filter2d",
    "loaded_libraries",
    "rasterize",
    "render_rays",
    "sample_planes",
    "set_backend",
    "setup_filter",
    "upfirdn2d",
    "upsample2d",
]
