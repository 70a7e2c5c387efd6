"""Tests of the image-to-triplane network: eq. 3, the encoder, H with its statistics, and the frozen generator."""

from dataclasses import replace

import pytest
import torch
from tiny_freestyle import FRONTS, GENERATOR, I2T, cameras, generator, i2t

from dreamportrait.core.schema import from_dict
from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.systems.freestyle.config import I2TConfig
from dreamportrait.systems.freestyle.generator import PictureTo3D, plane_statistics
from dreamportrait.systems.freestyle.modulation import EPSILON, Modulation, modulated, resized
from dreamportrait.systems.freestyle.network import ImageToTriplane


def test_eq_3_by_hand():
    """Two channels at two positions: (1, 3) has mean 2 and variance 1, (5, 5) has mean 5 and variance 0."""
    features = torch.tensor([[[[1.0, 5.0]], [[3.0, 5.0]]]])  # [1, 2, 1, 2]
    gamma = torch.tensor([[[[2.0, 7.0]], [[3.0, 7.0]]]])
    beta = torch.tensor([[[[10.0, 40.0]], [[20.0, 50.0]]]])
    one = (1 + EPSILON) ** -0.5
    expected = torch.tensor([[[[10 - 2 * one, 40.0]], [[20 + 3 * one, 50.0]]]])
    torch.testing.assert_close(modulated(features, gamma, beta), expected)
    shared = modulated(features, gamma[:, :1], beta[:, :1])  # one number for all channels
    torch.testing.assert_close(shared, torch.tensor([[[[10 - 2 * one, 40.0]], [[10 + 2 * one, 40.0]]]]))


def test_the_code_is_resized():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert resized(x, 4) is x
    assert resized(x, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]  # means of areas
    assert resized(x, 8).shape == (1, 1, 8, 8) and float(resized(x, 8)[0, 0, 0, 1]) == 0.25


@pytest.mark.parametrize(("kind", "channels"), [("full", 6), ("position", 1)])
def test_what_the_code_modulates(kind, channels):
    layer = Modulation(4, 6, 16, kind)
    gamma, beta = layer(torch.randn(2, 4, 8, 8))
    assert gamma.shape == beta.shape == (2, channels, 16, 16)
    torch.nn.init.zeros_(layer.out.weight)
    gamma, beta = layer(torch.randn(2, 4, 8, 8))
    assert torch.equal(gamma, torch.ones_like(gamma)) and not beta.any()


@pytest.mark.parametrize("change", [{}, {"code_size": 1}, {"code_size": 4}, {"code_size": 2, "modulation": "position"}])
def test_every_row_of_the_table_builds(change):
    """k = 1 is "w_s a vector" of table 2."""
    config = I2TConfig.fitting(GENERATOR, **{"code_size": 8, "code_channels": 8} | change)
    made = i2t(config)(FRONTS)
    assert made.planes.shape == (2, 3, 4, 16, 16) and made.w.shape == (2, 16)
    assert made.code.shape == (2, 8, config.code_size, config.code_size)
    other = i2t(config)(FRONTS.flip(3))
    assert not torch.allclose(made.planes, other.planes, atol=1e-2) and not torch.allclose(made.w, other.w, atol=1e-2)


def test_every_position_of_the_code_knows_the_whole_picture():
    front = FRONTS[:1].clone().requires_grad_()
    code, _ = i2t().encode(front)
    (slope,) = torch.autograd.grad(code[0, :, 0, 0].sum(), front)
    assert (slope.abs().amax(1) > 0).all()


def test_seven_layers_at_256():
    assert I2TConfig.fitting(GeneratorConfig()).resolutions == [4, 8, 16, 32, 64, 128, 256]
    with torch.device("meta"):
        assert len(ImageToTriplane(I2TConfig.fitting(GeneratorConfig())).layers) == 7


def test_planes_are_the_mean_and_scaled_differences():
    network = i2t()
    made = network(FRONTS)
    expected = network.mean_planes + network.deviation * network.difference(made.code)
    assert torch.equal(made.planes, expected)
    torch.testing.assert_close(network.decode(made.code), made.planes)
    for layer in network.layers.values():
        torch.nn.init.zeros_(layer.to_planes.weight)
    assert torch.equal(network(FRONTS).planes, network.mean_planes.expand(2, -1, -1, -1, -1))


def test_the_statistics_of_planes():
    made, ws = generator(), torch.randn(5, GENERATOR.w_dim, generator=torch.Generator().manual_seed(1))
    mean, deviation = plane_statistics(made, ws, batch=2)
    with torch.no_grad():
        planes = made.synthesize_planes(ws[:, None].expand(-1, made.num_ws, -1))
    torch.testing.assert_close(mean, planes.mean(0), rtol=1e-4, atol=1e-5)  # other batches round differently
    expected = (planes - planes.mean(0)).square().mean((0, 3, 4)).sqrt()
    torch.testing.assert_close(deviation, expected, rtol=1e-3, atol=1e-5)
    network = i2t()
    network.set_statistics(mean, torch.zeros_like(deviation))
    assert (network.deviation == 1).all()


def test_gradients_pass_the_frozen_generator():
    frozen = generator().requires_grad_(True)
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    made = PictureTo3D(i2t(), frozen)
    optimizer = torch.optim.Adam(made.i2t.parameters(), 1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        made.render(made.i2t(FRONTS), cameras()).image.square().mean().backward()
        slopes = {name: p.grad for name, p in made.i2t.named_parameters()}
        optimizer.step()
    assert all(slope is not None and slope.isfinite().all() and slope.any() for slope in slopes.values())
    assert all(p.grad is None and not p.requires_grad for p in frozen.parameters())
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())


def test_heads_are_those_of_any_system():
    made = PictureTo3D(i2t(), generator())
    with torch.no_grad():
        heads = made.heads(FRONTS)
        seen = heads.view(cameras())
    assert seen.image.shape == (2, 3, 16, 16) and len(heads[0].views(cameras(3))[0].images) == 3
    assert torch.equal(heads.ws[:, 0], heads.ws[:, -1])


def test_another_generator_is_refused():
    config = I2TConfig.fitting(GENERATOR, code_size=8, code_channels=8, w_dim=8, num_planes=1)
    with pytest.raises(ValueError, match="num_planes=1, not 3, w_dim=8, not 16; choose"):
        PictureTo3D(ImageToTriplane(config), generator())


def test_pictures_of_another_size_are_refused():
    with pytest.raises(ValueError, match="front"):
        i2t()(FRONTS[..., :8, :8])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"code_size": 3}, "code_size=3: must be a power of two from 1"),
        ({"code_size": 16}, "must be less than image_resolution=16"),
        ({"code_channels": 6}, "code_channels=6: must be a multiple of 4"),
        ({"modulation": "none"}, "modulation='none': must be one of full, position"),
        ({"channel_base": 8}, "channel_base=8: at least plane_resolution=16"),
        ({"image_resolution": 4}, "image_resolution"),
    ],
)
def test_wrong_sizes_are_refused(change, problem):
    with pytest.raises(ValueError, match=problem):
        I2TConfig(**{**vars(I2T), **change})


def test_the_configuration_goes_through_json():
    assert from_dict(I2TConfig, vars(I2T), "config.json") == I2T


def test_around_the_guess_the_generator_gives_the_first_planes():
    """A fresh network draws the head of its guess of w, and learns the difference from it."""
    made = PictureTo3D(ImageToTriplane(replace(I2T, around="guess")), generator())
    statistics = made.i2t.mean_planes + 3, made.i2t.deviation[..., 0, 0] * 2
    made.i2t.set_statistics(*statistics)
    found = made.heads(FRONTS)
    own = made.generator.synthesize_planes(found.ws, noise="const")
    torch.testing.assert_close(found.planes, own, rtol=0, atol=1e-5)
    found.planes.square().mean().backward()
    assert made.i2t.encoder.w.weight.grad is None  # the guess is learnt from w alone
    last = made.i2t.layers[str(I2T.plane_resolution)]
    assert float(last.to_planes.weight.grad.abs().sum()) > 0
    with torch.no_grad():
        last.to_planes.bias.fill_(1.0)
        torch.testing.assert_close(made.heads(FRONTS).planes, own + 2, rtol=0, atol=1e-5)
