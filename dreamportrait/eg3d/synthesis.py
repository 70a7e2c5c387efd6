"""The StyleGAN2 synthesis network with skip connections, the backbone that generates tri-planes."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from dreamportrait.eg3d.conv import conv2d_resample, modulated_conv2d
from dreamportrait.eg3d.inference import (
    forget,
    infers,
    input_scale,
    kind_of_convolution,
    modulated_pixels,
    output_scale,
    prepared,
)
from dreamportrait.eg3d.layers import FullyConnected, normal
from eg3d_ops import bias_act, modulated_lrelu, setup_filter, styled_conv3x3, upsample2d

Noise = Literal["const", "random", "none"]
NOISE_MODES = ("const", "random", "none")
Between = Callable[[int, Tensor], Tensor]  # resolution, features [N, C, H, W] -> features


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU."""

    resample_filter: Tensor
    noise_const: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, w_dim: int, resolution: int, up: int = 1, clamp: float | None = None
    ) -> None:
        super().__init__()
        self.up, self.clamp, self.resolution = up, clamp, resolution
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(normal(out_channels, in_channels, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("resample_filter", setup_filter([1, 3, 3, 1]))
        self.register_buffer("noise_const", normal(resolution, resolution))

    def noise(self, mode: Noise, x: Tensor) -> Tensor | None:  # -> [H, W] or [N, 1, H, W]
        if mode == "const":
            return self.noise_const * self.noise_strength
        if mode == "random":
            shape = (x.shape[0], 1, self.resolution, self.resolution)
            return torch.randn(shape, device=x.device) * self.noise_strength
        return None

    def forward(self, x: Tensor, w: Tensor, noise: Noise) -> Tensor:  # [N, Ci, h, w], [N, w_dim] -> [N, Co, H, W]
        forget(self.weight)
        x = modulated_conv2d(
            x,
            self.weight,
            styles=self.affine(w),
            noise=self.noise(noise, x),
            up=self.up,
            padding=1,
            resample_filter=self.resample_filter,
            flip_weight=self.up == 1,  # the released models' transposed convolution does not flip
            fused_modconv=len(x) == 1,  # weights per sample are only faster for a single sample
        )
        return bias_act(x, self.bias, act="lrelu", clamp=self.output_clamp)

    @property
    def output_clamp(self) -> float | None:
        return None if self.clamp is None else self.clamp * 2**0.5  # the activation's gain

    def infer(self, x: Tensor, scale: Tensor, noise: Noise, next_scale: Tensor | None = None) -> Tensor:
        """Return what `forward` returns up to rounding, without gradients.

        x is scaled by `scale` [N, Ci] already, and the result by `next_scale` [N, Co].
        """
        kind = kind_of_convolution(x, self.weight, self.up)
        weight, squares = prepared(self.weight, x.dtype, kind)
        if kind != "winograd":
            x = conv2d_resample(x, weight, self.resample_filter, up=self.up, padding=1, flip_weight=self.up == 1)
        after = (output_scale(scale, squares), self.bias, self.noise(noise, x), next_scale)
        if kind == "winograd":
            return styled_conv3x3(x, weight, *after, clamp=self.output_clamp)
        return modulated_lrelu(x, *after, clamp=self.output_clamp)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to the skip image, without demodulation."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, clamp: float | None = None) -> None:
        super().__init__()
        self.clamp = clamp
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(normal(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:  # [N, C, H, W], [N, w_dim] -> [N, Co, H, W]
        styles = self.affine(w) / self.weight.shape[1] ** 0.5
        if infers(self):
            return bias_act(modulated_pixels(x, self.weight, styles), self.bias, clamp=self.clamp)
        x = modulated_conv2d(x, self.weight, styles, demodulate=False, fused_modconv=len(x) == 1)
        return bias_act(x, self.bias, clamp=self.clamp)


class SynthesisBlock(nn.Module):
    """Two layers at one resolution and their contribution to the skip image.

    in_channels 0: the first block, which starts from a learned constant and has one layer.
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        img_channels: int,
        up: int = 2,
        clamp: float | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.up, self.dtype = up, dtype
        if in_channels == 0:
            self.const = nn.Parameter(normal(out_channels, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim, resolution, up, clamp)
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, resolution, clamp=clamp)
        self.torgb = ToRGB(out_channels, img_channels, w_dim, clamp)
        self.register_buffer("resample_filter", setup_filter([1, 3, 3, 1]))

    @property
    def num_convs(self) -> int:
        return 1 if hasattr(self, "const") else 2

    def forward(
        self, x: Tensor | None, img: Tensor | None, ws: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor]:  # features, skip image (float32); ws: each convolution's and torgb's [N, 2 or 3, w_dim]
        w = iter(ws.unbind(1))
        x = self.const.expand(len(ws), -1, -1, -1) if x is None else x
        # Channels-last convolutions are faster on a CPU (measured: 1.2 to 2 times) and in half precision on a GPU.
        channels_last = x.device.type == "cpu" or self.dtype != torch.float32
        x = x.to(self.dtype, memory_format=torch.channels_last if channels_last else torch.preserve_format)
        convs = (self.conv0, self.conv1) if self.num_convs == 2 else (self.conv1,)
        if all(infers(conv) for conv in convs):
            scales = [input_scale(conv.affine(next(w)), x.dtype) for conv in convs]
            x = x * scales[0].to(x.dtype)[:, :, None, None]
            for conv, scale, next_scale in zip(convs, scales, (*scales[1:], None), strict=True):
                x = conv.infer(x, scale, noise, next_scale)
        else:
            for conv in convs:
                x = conv(x, next(w), noise)
        if img is not None and self.up > 1:
            img = upsample2d(img, self.resample_filter)
        rgb = self.torgb(x, next(w)).float()
        return x, rgb if img is None else img + rgb


class SynthesisNetwork(nn.Module):
    """Synthesis blocks at resolutions 4, 8, ... up to `resolution`. The output is the skip image."""

    def __init__(
        self,
        w_dim: int,
        resolution: int,
        img_channels: int,
        channel_base: int,
        channel_max: int,
        clamp: float | None = None,
        low_precision: torch.dtype = torch.float32,
        num_low_precision: int = 0,  # number of highest resolutions computed in `low_precision`; never below 8
    ) -> None:
        super().__init__()
        self.resolutions = [2**i for i in range(2, resolution.bit_length())]
        channels = {r: min(channel_base // r, channel_max) for r in self.resolutions}
        from_resolution = max(resolution >> max(num_low_precision - 1, 0), 8) if num_low_precision else resolution + 1
        for r in self.resolutions:
            dtype = low_precision if r >= from_resolution else torch.float32
            before = channels[r // 2] if r > 4 else 0
            block = SynthesisBlock(before, channels[r], w_dim, r, img_channels, clamp=clamp, dtype=dtype)
            self.add_module(f"b{r}", block)
        self.num_ws = sum(block.num_convs for block in self.blocks()) + 1

    def blocks(self) -> list[SynthesisBlock]:
        return [getattr(self, f"b{r}") for r in self.resolutions]

    def forward(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        noise: Noise = "const",
        between: Between | None = None,  # changes the features before the next block
    ) -> Tensor:  # [N, C, R, R]
        x = img = None
        first = 0
        for resolution, block in zip(self.resolutions, self.blocks(), strict=True):
            # torgb shares the w of the next block's first convolution.
            x, img = block(x, img, ws[:, first : first + block.num_convs + 1].float(), noise)
            first += block.num_convs
            if between is not None and resolution != self.resolutions[-1]:
                x = between(resolution, x)
        assert img is not None
        return img
