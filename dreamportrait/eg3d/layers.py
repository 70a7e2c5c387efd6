"""Equalised layers: weights are stored with unit variance and scaled at run time, so all learn at the same rate."""

import torch
from torch import Tensor, nn

from dreamportrait.eg3d.conv import conv2d_resample
from eg3d_ops import bias_act, setup_filter


def normal(*shape: int, divisor: float = 1.0) -> Tensor:
    """Draw initial values; on the meta device, return only the shape.

    PyTorch computes on meta tensors with Python code whose import takes more than two seconds, and loading a network
    builds an empty one first.
    """
    empty = torch.empty(*shape)
    return empty if empty.is_meta else torch.randn(*shape) / divisor


class FullyConnected(nn.Module):
    """Equalised linear layer: y = act(x W^T lr / sqrt(in) + b lr)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: str = "linear",
        lr_multiplier: float = 1.0,  # learning rate relative to the other layers
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.weight_gain = lr_multiplier / in_features**0.5
        self.bias_gain = lr_multiplier
        self.weight = nn.Parameter(normal(out_features, in_features, divisor=lr_multiplier))
        self.bias = nn.Parameter(torch.full((out_features,), bias_init))

    def scaled(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias after scaling, as `forward` applies them."""
        return self.weight * self.weight_gain, self.bias * self.bias_gain

    def forward(self, x: Tensor) -> Tensor:  # [N, in] -> [N, out]
        weight, bias = (part.to(x.dtype) for part in self.scaled())
        if self.activation == "linear":
            return torch.nn.functional.linear(x, weight, bias)
        return bias_act(x @ weight.T, bias, act=self.activation)


class Conv(nn.Module):
    """Equalised convolution of the discriminator, with optional downsampling."""

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        bias: bool = True,
        activation: str = "linear",
        down: int = 1,
        clamp: float | None = None,  # largest magnitude of the output. None = no limit
    ) -> None:
        super().__init__()
        self.activation, self.down, self.clamp = activation, down, clamp
        self.padding = kernel // 2
        self.weight_gain = 1 / (in_channels * kernel**2) ** 0.5
        self.weight = nn.Parameter(normal(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.register_buffer("resample_filter", setup_filter([1, 3, 3, 1]))

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:  # [N, Ci, H, W] -> [N, Co, H / down, W / down]
        weight = (self.weight * self.weight_gain).to(x.dtype)
        x = conv2d_resample(x, weight, self.resample_filter, down=self.down, padding=self.padding)
        default = 2**0.5 if self.activation == "lrelu" else 1.0
        clamp = None if self.clamp is None else self.clamp * gain
        return bias_act(x, self.bias, act=self.activation, gain=default * gain, clamp=clamp)
