"""Tests of float16 and bfloat16 against float32: the same network, with its highest resolutions in lower precision.

Tolerances are relative L2 errors of whole images. float16 has 11 bits (half a unit: 2.4e-4), bfloat16 has 8 (2e-3),
and each number passes through some ten such layers. The measured errors are 5e-4 and 5e-3.
"""

from dataclasses import replace

import pytest
import torch
from golden_networks import state
from goldens import load

from dreamportrait.eg3d.discriminator import DualDiscriminator
from dreamportrait.eg3d.layers import FullyConnected
from dreamportrait.eg3d.official import discriminator_config_from_official, generator_config_from_official
from dreamportrait.eg3d.synthesis import SynthesisLayer
from dreamportrait.eg3d.triplane import TriPlaneGenerator

LIMITS = {"float16": 2e-3, "bfloat16": 2e-2}
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def generator(precision: str, num_low_precision: int = 3) -> TriPlaneGenerator:
    arguments = {**load("generator_tiny").info["init_kwargs"], "num_fp16_res": num_low_precision, "sr_num_fp16_res": 4}
    made = TriPlaneGenerator(generator_config_from_official(arguments, precision))
    made.load_state_dict(state("generator_tiny"))
    return made.eval()


def error(low: torch.Tensor, full: torch.Tensor) -> float:
    return ((low.double() - full.double()).norm() / full.double().norm()).item()


@pytest.mark.parametrize("precision", LIMITS)
@torch.no_grad()
@pytest.mark.lengthy
def test_generator(precision):
    given = load("generator_tiny").group("in")
    low, full = (generator(p) for p in (precision, "float32"))
    seen = {}
    for r, block in zip(low.backbone.synthesis.resolutions, low.backbone.synthesis.blocks(), strict=True):
        block.register_forward_hook(lambda _, __, out, r=r: seen.update({r: out[0].dtype}))
    a, b = (g(given["z"][:1], given["c"][:1], resolution=16) for g in (low, full))
    # Only the three highest resolutions are in low precision.
    assert seen == {r: DTYPES[precision] if r >= 64 else torch.float32 for r in (4, 8, 16, 32, 64, 128, 256)}
    assert a.image.dtype == a.image_raw.dtype == torch.float32
    for name in ("image", "image_raw", "depth"):
        assert 0 < error(getattr(a, name), getattr(b, name)) <= LIMITS[precision], name


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.lengthy
def test_gradients(precision):
    given = load("generator_tiny").group("in")
    gradients = []
    for p in (precision, "float32"):
        g = generator(p)
        g(given["z"][:1], given["c"][:1], resolution=16).image.square().mean().backward()
        gradients.append(torch.cat([q.grad.flatten() for q in g.parameters() if q.grad is not None]))
    assert gradients[0].isfinite().all()
    assert 0 < error(*gradients) <= 5 * LIMITS[precision]  # the backward pass rounds as often again; its sums cancel


@pytest.mark.parametrize("precision", LIMITS)
@torch.no_grad()
def test_discriminator(precision):
    tensors = load("discriminator_tiny").group("in")
    image = tensors["image_u8"].float() / 127.5 - 1
    config = discriminator_config_from_official(load("discriminator_tiny").info["init_kwargs"])
    logits = []
    for p in (precision, "float32"):
        d = DualDiscriminator(replace(config, precision=p))
        d.load_state_dict(state("discriminator_tiny"))
        logits.append(d(image, tensors["image_raw"], tensors["c"]))
    assert logits[0].dtype == torch.float32
    assert 0 < error(*logits) <= LIMITS[precision]


@torch.no_grad()
def test_half_precision_survives_large_weights():
    """Demodulation cancels any scale of the weights; naive sums would exceed 65504, the largest float16."""
    layer = SynthesisLayer(64, 8, 16, 8)
    layer.weight.mul_(300)
    layer.affine = FullyConnected(16, 64, bias_init=300.0)
    x, w = torch.randn(1, 64, 8, 8) * 8, torch.randn(1, 16)
    for fused in (1, 2):  # batch size; a batch of one takes the fused path
        args = (x.expand(fused, -1, -1, -1), w.expand(fused, -1), "none")
        half, full = layer(args[0].half(), *args[1:]), layer(*args)
        assert half.isfinite().all()
        assert error(half, full) <= LIMITS["float16"]


def test_unknown_precision():
    with pytest.raises(ValueError, match="precision='half': must be one of"):
        generator("half")
