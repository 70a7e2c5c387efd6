"""Fast, differentiable operations for tri-plane GANs. Each has a reference implementation in plain PyTorch.

Importing this package compiles and loads nothing; `eg3d_ops._backend` describes what happens at the first use.
"""

from ._backend import backend, cpu_isa, loaded_libraries, set_backend
from .bias_act import bias_act
from .filters import downsample2d, filter2d, setup_filter, upsample2d
from .marching import RenderedRays
from .modulated_lrelu import modulated_lrelu
from .planes import PLANE_AXES, Decoder, decode, sample_planes
from .rasterize import rasterize
from .render_rays import render_rays
from .styled_conv import styled_conv3x3, winograd_weight
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
    "modulated_lrelu",
    "rasterize",
    "render_rays",
    "sample_planes",
    "set_backend",
    "setup_filter",
    "styled_conv3x3",
    "upfirdn2d",
    "upsample2d",
    "winograd_weight",
]
