"""Official generators with their stored weights, and comparisons with their stored outputs.

Tolerances are relative to the largest value of each tensor. Both sides compute in float32 in different orders;
errors grow after importance sampling, where rounding moves samples. The reference data suggests 1e-5 for
backbones, 1e-4 for images, 1e-3 for gradients; the asserted tolerances are a few times the measured errors.
"""

import pytest
import torch
from golden_networks import cut, outputs, relative, state
from goldens import load
from torch import Tensor

from dreamportrait.eg3d.official import generator_from_official
from dreamportrait.eg3d.triplane import TriPlaneGenerator

BACKBONE, RENDERED, IMAGE, GRADIENT = 3e-6, 6e-5, 6e-5, 1e-3
NAMES = ("generator_tiny", "generator_4x", "generator_8xdc")


def golden_generator(name: str) -> TriPlaneGenerator:
    generator = generator_from_official(load(name).info["init_kwargs"])
    generator.load_state_dict(state(name), strict=True)
    return generator.eval()


def inputs(name: str) -> dict[str, Tensor]:
    return load(name).group("in")


def half_draws(generator: TriPlaneGenerator, batch: int, resolution: int) -> tuple[Tensor, Tensor]:
    """Return draws that are all 0.5, which most of the reference data was made with."""
    counts = (generator.config.num_coarse, generator.config.num_fine)
    coarse, fine = (torch.full((batch, resolution**2, count), 0.5) for count in counts)
    return coarse, fine


IMAGE_SLICE = {
    "generator_tiny": "[:, :, 1::8, 2::8]",
    "generator_4x": "[:, :, 4::8, 1::8]",
    "generator_8xdc": "[:, :, 8::16, 1::16]",
}
RAW_SLICE = {
    "nrr64_image_raw": "[:, :, ::8, ::8]",
    "nrr80_image_raw": "[:, :, ::8, ::8]",
    "nrr128_image_raw": "[:, :, ::8, ::8]",
    "render2_image_raw": "[:, :, ::2, ::2]",
}


def assert_stored(name: str, key: str, value: Tensor, limit: float) -> None:
    """Compare with the stored tensor `key` or with its stored slice, and with its norm if that is stored."""
    expected, stats = outputs(name), load(name).info["stats"].get(key, {})
    if key in expected:
        assert relative(value, expected[key]) <= limit, key
    else:
        text = stats.get("slice") or RAW_SLICE.get(key) or IMAGE_SLICE[name]
        assert relative(cut(value, text), expected[f"{key}.slice"]) <= limit, key
    if stats:
        assert value.double().norm().item() == pytest.approx(stats["l2"], rel=limit), key


def render_half(generator, planes, camera, w, size, impl="auto"):
    draws = half_draws(generator, len(planes), size)
    return generator.render(planes, camera, w=w, resolution=size, draws=draws, impl=impl)
