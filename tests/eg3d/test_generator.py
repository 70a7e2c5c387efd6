"""Tests of the tri-plane generator against the official one: every stored intermediate, output and gradient.

golden_generators.py states the tolerances.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from golden_generators import (
    BACKBONE,
    GRADIENT,
    IMAGE,
    NAMES,
    RENDERED,
    assert_stored,
    golden_generator,
    half_draws,
    inputs,
    render_half,
)
from golden_networks import hashfill, outputs, relative, state
from goldens import load
from torch import Tensor

from dreamportrait.eg3d.official import discriminator_from_official, generator_from_official
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.geometry.rays import rays_from_label
from eg3d_ops import render_rays
from eg3d_ops.marching import interval_weights
from eg3d_ops.sampling import importance_depths, stratified_depths


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    return request.param, golden_generator(request.param)


@pytest.fixture(scope="module")
def tiny():
    return golden_generator("generator_tiny")


@contextmanager
def recorded(generator: TriPlaneGenerator) -> Iterator[dict[str, Tensor]]:
    """Record the outputs of every synthesis block during one pass."""
    blocks = {
        f"backbone.b{r}": b
        for r, b in zip(generator.backbone.synthesis.resolutions, generator.backbone.synthesis.blocks(), strict=True)
    }
    blocks |= {"sr.block0": generator.superresolution.block0, "sr.block1": generator.superresolution.block1}
    seen: dict[str, Tensor] = {}
    hooks = [
        block.register_forward_hook(
            lambda _, __, out, name=name: seen.update({f"{name}.x": out[0], f"{name}.img": out[1]})
        )
        for name, block in blocks.items()
    ]
    yield seen
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("impl", ["reference", "auto"])
@torch.no_grad()
@pytest.mark.lengthy
def test_every_block_and_output(case, impl):
    name, generator = case
    given, size = inputs(name), load(name).info["neural_rendering_resolution"]
    with recorded(generator) as seen:
        w = generator.map(given["z"], given["c"])
        planes = generator.synthesize_planes(w)
        out = render_half(generator, planes, given["c"], w, size, impl)
    assert relative(w[:, 0], outputs(name)["w"]) <= BACKBONE
    assert_stored(name, "planes", planes.flatten(1, 2), BACKBONE)
    assert len(seen) == 2 * (7 + 2)
    for key, value in seen.items():
        assert_stored(name, key, value, BACKBONE if key.startswith("backbone") else IMAGE)
    assert_stored(name, "depth", out.depth, RENDERED)
    assert_stored(name, "image_raw", out.image_raw, RENDERED)
    assert_stored(name, "image", out.image, IMAGE)
    assert_stored(name, "weights_sum", out.weights.flatten(2).mT, RENDERED)
    grid = generator.render(planes, given["c"], w=w, resolution=size, impl=impl)
    assert_stored(name, "grid_depth", grid.depth, RENDERED)
    assert_stored(name, "grid_image", grid.image, IMAGE)


@torch.no_grad()
def test_inside_the_renderer(tiny):
    """The parts of the reference renderer give the official sample depths, coarse weights and features."""
    given, expected, c = inputs("generator_tiny"), outputs("generator_tiny"), tiny.config
    planes = tiny.synthesize_planes(tiny.map(given["z"], given["c"]))
    origins, directions = rays_from_label(given["c"], 16)
    near, far = (torch.full((2, 256, 1), float(limit)) for limit in (c.ray_start, c.ray_end))
    depths = stratified_depths(near, far, c.num_coarse, 0.5)  # [2, 256, 8]
    points = (origins[:, :, None] + depths[..., None] * directions[:, :, None]).flatten(1, 2)
    density, _ = tiny.sample_density_and_color(points, planes)
    weights = interval_weights(density.reshape(2, 256, 8), depths)  # [2, 256, 7]
    assert relative(depths[:, :2, :, None], expected["depths_coarse"]) <= BACKBONE
    assert relative(weights[:, ::16, :, None], expected["coarse_weights"]) <= RENDERED
    half = importance_depths(depths, weights, torch.full((2, 256, 8), 0.5))
    grid = importance_depths(depths, weights, ((torch.arange(8) + 0.5) / 8).expand(2, 256, 8))
    assert relative(half[..., :1, None], expected["depths_fine"]) <= BACKBONE
    assert relative(grid[:, ::8, :, None], expected["grid_depths_fine"]) <= BACKBONE
    out = render_rays(
        planes,
        origins,
        directions,
        tiny.decoder.weights(),
        plane_axes="official",
        ray_start=c.ray_start,
        ray_end=c.ray_end,
        num_coarse=8,
        num_fine=8,
        draws=half_draws(tiny, 2, 16),
    )
    features = out.features.mT.reshape(2, 32, 16, 16)
    assert relative(features, expected["feature_image"]) <= RENDERED


@torch.no_grad()
def test_other_views_and_resolutions(tiny):
    name, given = "generator_tiny", inputs("generator_tiny")
    w = tiny.map(given["z"], given["c"])
    planes = tiny.synthesize_planes(w)
    other = render_half(tiny, planes, given["c_render2"], w, 16)
    assert_stored(name, "render2_depth", other.depth, RENDERED)
    assert_stored(name, "render2_image_raw", other.image_raw, RENDERED)
    assert_stored(name, "render2_image", other.image, IMAGE)
    larger = render_half(tiny, planes[:1], given["c"][:1], w[:1], 80)
    assert_stored(name, "nrr80_image_raw", larger.image_raw, RENDERED)
    assert_stored(name, "nrr80_image", larger.image, IMAGE)


@pytest.mark.parametrize(("name", "size"), [("generator_tiny", 64), ("generator_4x", 128)])
@torch.no_grad()
@pytest.mark.lengthy
def test_raw_image_with_and_without_first_block(name, size):
    """At the input resolution of super-resolution, the official raw image contains its first block's colours."""
    generator, given = golden_generator(name), inputs(name)
    w = generator.map(given["z"], given["c"])
    planes = generator.synthesize_planes(w)
    out = render_half(generator, planes, given["c"], w, size)
    assert_stored(name, f"nrr{size}_image_raw", out.image_raw, RENDERED)
    assert_stored(name, f"nrr{size}_image", out.image, IMAGE)
    generator.config = replace(generator.config, raw_includes_first_block=False)
    plain = render_half(generator, planes, given["c"], w, size)
    expected = outputs(name)[f"nrr{size}_renderer_rgb.slice"]
    assert relative(plain.image_raw[:, :, ::8, ::8], expected) <= RENDERED
    assert torch.equal(plain.image, out.image)


@torch.no_grad()
def test_truncation(tiny):
    name, given, expected = "generator_tiny", inputs("generator_tiny"), outputs("generator_tiny")
    kept = [0, 3, 4, 13]
    for key, cutoff in (("ws_psi0.7", None), ("ws_psi0.7_cutoff4", 4)):
        w = tiny.map(given["z"], given["c"], truncation_psi=0.7, truncation_cutoff=cutoff)
        assert relative(w[:, kept], expected[key]) <= BACKBONE
    planes = tiny.synthesize_planes(w, noise="none")
    out = render_half(tiny, planes, given["c"], w, 16)
    assert_stored(name, "psi0.7_cutoff4_nonoise_image", out.image, IMAGE)


@torch.no_grad()
def test_conditioning_and_average():
    generator, given, expected = golden_generator("generator_tiny"), inputs("generator_tiny"), outputs("generator_tiny")
    generator.map(given["z"], given["c"], update_average=True)
    assert relative(generator.backbone.mapping.w_avg, expected["w_avg_after_update"]) <= BACKBONE
    for change in ({"camera_conditioning": False}, {"camera_scale": 0.0}):
        generator.config = replace(load_config("generator_tiny"), **change)
        assert relative(generator.map(given["z"], given["c"])[:, 0], expected["w_conditioning_zero"]) <= BACKBONE


def load_config(name):
    return golden_generator(name).config


def test_missing_camera_scale_is_zero():
    """A missing c_scale counts as 0, as in the official code: the checkpoint was trained without conditioning."""
    arguments = copy.deepcopy(load("generator_tiny").info["init_kwargs"])
    del arguments["rendering_kwargs"]["c_scale"]
    assert generator_from_official(arguments).config.camera_scale == 0


@torch.no_grad()
def test_density_and_color_at_points(tiny):
    given, expected = inputs("generator_tiny"), outputs("generator_tiny")
    planes = tiny.synthesize_planes(tiny.map(given["z"], given["c"]))
    density, color = tiny.sample_density_and_color(given["coordinates"], planes)
    assert relative(density, expected["sample_sigma"]) <= BACKBONE
    assert relative(color, expected["sample_rgb"]) <= BACKBONE


@pytest.mark.parametrize("impl", ["reference", "auto"])
@pytest.mark.lengthy
def test_gradients(impl):
    name = "generator_tiny"
    generator, given, info = golden_generator(name), inputs(name), load(name).info
    w = generator.map(given["z"], given["c"])
    out = generator.render(generator.synthesize_planes(w), given["c"], w=w, resolution=16, impl=impl)
    p, q = (hashfill(name, key, list(x.shape)) for key, x in (("P", out.image), ("Q", out.image_raw)))
    loss = (out.image * p).mean() + (out.image_raw * q).mean()
    assert loss.item() == pytest.approx(info["gradients"]["loss"], rel=1e-4)
    loss.backward()
    expected = info["gradients"]["per_parameter"]
    assert set(expected) == {key for key, _ in generator.named_parameters()}
    for key, parameter in generator.named_parameters():
        if expected[key] is None:
            assert parameter.grad is None, key
            continue
        norm = expected[key]["l2"]
        assert parameter.grad.double().norm().item() == pytest.approx(norm, rel=GRADIENT), key
        first = parameter.grad.flatten()[:4]
        assert (first - torch.tensor(expected[key]["first"])).abs().max() <= GRADIENT * norm, key


@torch.no_grad()
@pytest.mark.lengthy
def test_many_views_run_the_backbone_once(tiny):
    given, calls = inputs("generator_tiny"), []
    hook = tiny.backbone.synthesis.register_forward_hook(lambda *_: calls.append(1))
    w = tiny.map(given["z"], given["c"])
    planes = tiny.synthesize_planes(w)
    views = [tiny.render(planes, camera, w=w, resolution=8) for camera in (given["c"], given["c_render2"])]
    hook.remove()
    assert len(calls) == 1
    assert not torch.equal(views[0].image, views[1].image)
    chained = tiny(given["z"], given["c"], resolution=8)
    assert torch.equal(chained.image, views[0].image)


@torch.no_grad()
@pytest.mark.lengthy
def test_noise_modes(tiny):
    given = inputs("generator_tiny")
    w = tiny.map(given["z"], given["c"])
    const, none = (tiny.synthesize_planes(w, noise=mode) for mode in ("const", "none"))
    random = [tiny.synthesize_planes(w, noise="random") for _ in range(2)]
    assert not torch.equal(const, none) and not torch.equal(*random)
    assert torch.equal(const, tiny.synthesize_planes(w))


@pytest.mark.parametrize("config", ["ffhq512", "afhq512", "shapenet128"])
def test_names_and_shapes_at_full_size(config):
    """Names and shapes match at full size. On the meta device nothing is computed or stored."""
    configs = load("names").info["configs"]
    official = configs[config]
    if isinstance(official["G_state_dict"], str):  # "identical ... to ffhq512"
        official = {
            **configs["ffhq512"],
            "G_init_kwargs": official["G_init_kwargs"],
            "D_init_kwargs": official["D_init_kwargs"],
        }
    with torch.device("meta"):
        networks = {
            "G": generator_from_official(official["G_init_kwargs"]),
            "D": discriminator_from_official(official["D_init_kwargs"]),
        }
    for kind, network in networks.items():
        named = {key: "param" for key, _ in network.named_parameters()}
        found = {key: [list(value.shape), named.get(key, "buffer")] for key, value in network.state_dict().items()}
        expected = {key: [shape, role] for key, (shape, _, role) in official[f"{kind}_state_dict"].items()}
        assert found == expected
        assert sum(p.numel() for p in network.parameters()) == official[f"{kind}_param_count"]


def bad(change):
    arguments = copy.deepcopy(load("generator_tiny").info["init_kwargs"])
    change(arguments)
    return arguments


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda k: k.update(w_dimm=3), r"generator: unknown arguments \['w_dimm'\]"),
        (lambda k: k["rendering_kwargs"].update(box_wrap=1), r"rendering_kwargs: unknown arguments \['box_wrap'\]"),
        (lambda k: k.pop("z_dim"), r"generator: missing arguments \['z_dim'\]"),
        (lambda k: k["rendering_kwargs"].pop("box_warp"), r"rendering_kwargs: missing arguments \['box_warp'\]"),
        (lambda k: k.update(z_dim=0), "z_dim must be at least 1, got 0"),
        (lambda k: k["rendering_kwargs"].update(superresolution_module="x.Hybrid16X"), "superresolution_module="),
        (lambda k: k["rendering_kwargs"].update(clamp_mode="relu"), "clamp_mode='relu'"),
        (lambda k: k.update(img_resolution=100), "img_resolution=100"),
        (lambda k: k.update(img_channels=1), "img_channels=1"),
    ],
)
def test_bad_official_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        generator_from_official(bad(change))


def test_bad_inputs(tiny):
    given = inputs("generator_tiny")
    z, camera = given["z"], given["c"]
    with pytest.raises(ValueError, match="z must have shape"):
        tiny.map(z[:, :5], camera)
    with pytest.raises(ValueError, match="25 numbers"):
        tiny.map(z, camera[:, :16])
    with pytest.raises(ValueError, match="one row per sample"):
        tiny.map(z, camera[:1])
    w = tiny.map(z, camera)
    with pytest.raises(ValueError, match="w must have shape"):
        tiny.synthesize_planes(w[:, 0])
    with pytest.raises(ValueError, match="noise='loud'"):
        tiny.synthesize_planes(w, noise="loud")
    planes = tiny.synthesize_planes(w)
    skewed = camera.clone()
    skewed[1, 0] += 0.5
    with pytest.raises(ValueError, match="camera 1 of 2: the pose must be a rotation"):
        tiny.render(planes, skewed, w=w)
    pixels = camera.clone()
    pixels[:, 16:24] *= 512
    with pytest.raises(ValueError, match="divide intrinsics by the image size"):
        tiny.render(planes, pixels, w=w)


def test_missing_and_extra_weights():
    generator, weights = golden_generator("generator_tiny"), state("generator_tiny")
    weights["backbone.mapping.fc9.bias"] = weights.pop("backbone.mapping.fc1.bias")
    with pytest.raises(RuntimeError, match=r"(?s)Missing key.*fc1\.bias.*Unexpected key.*fc9\.bias"):
        generator.load_state_dict(weights)
