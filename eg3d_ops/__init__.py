"""Fast, differentiable operations for tri-plane GANs, each beside a plain PyTorch twin.

Importing this package compiles and loads nothing; see `eg3d_ops._backend` for what happens at first use.
"""
