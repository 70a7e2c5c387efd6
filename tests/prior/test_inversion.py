"""Tests of the network from pictures to w."""

import pytest
import torch

from dreamportrait.prior.fitting import fit_inverter
from dreamportrait.prior.inversion import GRIDS, FeatureMap, PictureFeatures
from dreamportrait.text.compact_clip import ClipConfig, build

RESNET = ClipConfig("resnet", 8, 1, 0, text_width=16, text_layers=2, text_heads=2, embed_dim=16)
TRANSFORMER = ClipConfig("vit", 32, 3, 16, text_width=16, text_layers=2, text_heads=2, embed_dim=16)


@pytest.mark.parametrize(("config", "channels"), [(RESNET, (64, 128, 256)), (TRANSFORMER, (32, 32, 32))])
def test_features_are_the_areas_of_the_last_three_stages(config: ClipConfig, channels: tuple[int, ...]) -> None:
    see = PictureFeatures(build(config, 10).eval())
    images = torch.rand(3, 3, 64, 64) * 2 - 1
    found = see(images)
    assert found.shape == (3, sum(c * grid**2 for c, grid in zip(channels, GRIDS, strict=True)))
    assert see.maps() == tuple(zip(channels, GRIDS, strict=True))
    larger = torch.nn.functional.interpolate(images, (128, 128), mode="nearest")
    # Enlarged and reduced again: bicubic filters change single pixels of noise, hence the loose tolerance.
    assert torch.nn.functional.cosine_similarity(see(larger), found).min() > 0.8


def test_the_inverter_learns_a_linear_map(tmp_path) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    features = torch.randn(2000, 12)
    x = features @ torch.randn(12, 3)
    _, error = fit_inverter((FeatureMap(3, 2),), features, x, tmp_path, steps=400, batch=64, seed=0, noise=0.0)
    assert error < 0.1  # of the variance; predicting the mean gives 1
