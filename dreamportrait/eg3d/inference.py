"""Synthesis layers for inference: one weight for all samples, and one pass over the result of each convolution.

In training, `modulated_conv2d` multiplies weights by styles s and by the demodulation d. Up to rounding, the same is

    y = d * conv(s * x, weight),    d = 1 / sqrt(sum over channels of s^2 * (sum over taps of weight^2) + 1e-8)

so without gradients the weight never changes. It is converted once to the type and the layout of the convolution, with
the sums of its squares. d, noise, bias, activation and the next layer's s are applied together by `modulated_lrelu`.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from dreamportrait.eg3d.conv import largest
from eg3d_ops import winograd_weight
from eg3d_ops._backend import use_compiled
from eg3d_ops.styled_conv import MULTIPLE, PANEL


def infers(layer: nn.Module) -> bool:
    """Return whether a layer may be computed as above: without gradients, and not with a weight that is in training."""
    return not torch.is_grad_enabled() and not (layer.training and layer.weight.requires_grad)


class Prepared(NamedTuple):
    weight: Tensor  # in the type of the features, and the layout that its kind of convolution reads
    squares: Tensor  # [Ci, Co] sums over taps, in the type of the parameter


Kind = Literal["direct", "transposed", "winograd"]  # of a convolution

# Parameter -> its version and what was prepared of it, by type and kind. An entry goes with its parameter.
_prepared: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def prepared(weight: Tensor, dtype: torch.dtype, kind: Kind) -> Prepared:
    """Return the prepared weight of a parameter [Co, Ci, kh, kw], from the cache unless the parameter has changed."""
    if not can_be_remembered(weight):
        return prepare(weight, dtype, kind)
    state = (weight._version, weight.data_ptr(), weight.device)
    known, kinds = _prepared.get(weight, (None, {}))
    if known != state:
        kinds = {}
        _prepared[weight] = state, kinds
    if (dtype, kind) not in kinds:
        with torch.inference_mode(False):
            kinds[dtype, kind] = prepare(weight, dtype, kind)
    return kinds[dtype, kind]


def can_be_remembered(weight: Tensor) -> bool:
    """Return whether changes of a weight can be noticed.

    PyTorch counts changes in place, but not of inference tensors, nor those through `weight.data`. Subclasses of Tensor
    have rules of their own.
    """
    plain = type(weight) in (Tensor, nn.Parameter)
    return plain and not weight.is_inference() and not torch.compiler.is_compiling()


def forget(weight: Tensor) -> None:
    """Drop what was prepared of a weight. Training calls this, because fused optimisers do not count their changes."""
    if not torch.compiler.is_compiling():
        _prepared.pop(weight, None)


@torch.no_grad()
def prepare(weight: Tensor, dtype: torch.dtype, kind: Kind) -> Prepared:
    weight = weight.detach()
    if dtype == torch.float16:  # demodulation cancels any scale; this one keeps sums below 65504
        weight = weight / (largest(weight, (1, 2, 3)) * weight[0].numel() ** 0.5)
    squares = weight.square().sum((2, 3)).T.contiguous()
    if kind == "winograd":
        return Prepared(winograd_weight(weight.to(dtype)), squares)
    # A transposed convolution reads [Ci, Co, kh, kw]: that has its channels innermost then.
    swapped = weight.transpose(0, 1) if kind == "transposed" else weight
    placed = swapped.to(dtype, memory_format=torch.channels_last)
    return Prepared(placed.transpose(0, 1) if kind == "transposed" else placed, squares)


# Winograd's algorithm pays from this many pixels of a batch on: with fewer, reading the transformed weight takes longer
# than multiplying. It computes whole panels of output channels, of which this part must be used.
FEWEST_PIXELS, FEWEST_USED = 64, 0.75


def kind_of_convolution(x: Tensor, weight: Tensor, up: int) -> Kind:
    """Return how a 3x3 convolution is computed: Winograd's algorithm is 1.5 to 2 times as fast where it applies."""
    if up > 1:
        return "transposed"
    co, ci = weight.shape[:2]
    fits = x.device.type == "cpu" and x.dtype == torch.float32 and ci % MULTIPLE == co % MULTIPLE == 0
    used = co / (-(-co // PANEL) * PANEL)
    pays = x.shape[0] * x.shape[2] * x.shape[3] >= FEWEST_PIXELS and used >= FEWEST_USED and can_be_remembered(weight)
    return "winograd" if fits and pays and use_compiled("auto", x.device) else "direct"


def input_scale(styles: Tensor, dtype: torch.dtype) -> Tensor:  # [N, Ci]
    """Return the factors of the input channels. In float16 the largest is 1, which demodulation cancels."""
    return styles / largest(styles, (1,)) if dtype == torch.float16 else styles


def output_scale(scale: Tensor, squares: Tensor) -> Tensor:  # [N, Ci], [Ci, Co] -> [N, Co]
    """Return the demodulation: 1 / norm of the weights that the input's scale amounts to."""
    return (scale.square() @ squares + 1e-8).rsqrt()


def modulated_pixels(x: Tensor, weight: Tensor, styles: Tensor) -> Tensor:  # [N, C, H, W] -> [N, Co, H, W]
    """Apply a modulated 1x1 convolution [Co, C, 1, 1] without demodulation, as matrix products over the pixels."""
    n, c, h, w = x.shape
    of_sample = (weight.flatten(1) * styles[:, None]).to(x.dtype)  # [N, Co, C]: few numbers
    if x.is_contiguous(memory_format=torch.channels_last):
        y = x.permute(0, 2, 3, 1).reshape(n, h * w, c) @ of_sample.mT  # [N, H W, Co]
        return y.reshape(n, h, w, -1).permute(0, 3, 1, 2)
    return (of_sample @ x.reshape(n, c, h * w)).reshape(n, -1, h, w)
