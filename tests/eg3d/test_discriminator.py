"""Tests of the dual discriminator against the official one: blocks, logits, R1, first and second gradients."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from golden_networks import cut, hashfill, outputs, relative, state
from goldens import load

from dreamportrait.eg3d.discriminator import DualDiscriminator
from dreamportrait.eg3d.official import discriminator_config_from_official, discriminator_from_official

NAME = "discriminator_tiny"
# Tolerances relative to each tensor's largest value, for float32 in another order of operations; the measured
# errors of outputs are below 1e-6.
FORWARD, GRADIENT = 3e-6, 1e-3


def golden_discriminator(**changes) -> DualDiscriminator:
    config = discriminator_config_from_official(load(NAME).info["init_kwargs"])
    discriminator = DualDiscriminator(replace(config, **changes))
    discriminator.load_state_dict(state(NAME), strict=True)
    return discriminator.eval()


def given():
    tensors = load(NAME).group("in")
    return tensors["image_u8"].float() / 127.5 - 1, tensors["image_raw"], tensors["c"]


@torch.no_grad()
def test_blocks_and_logits():
    discriminator, seen = golden_discriminator(), {}
    for key, module in {f"b{r}.x": discriminator.get_submodule(f"b{r}") for r in discriminator.resolutions}.items():
        module.register_forward_hook(lambda _, __, out, key=key: seen.update({key: out}))
    for part in ("conv", "fc"):
        module = getattr(discriminator.b4, part)
        module.register_forward_hook(lambda _, __, out, key=f"b4.{part}": seen.update({key: out}))
    discriminator.mapping.register_forward_hook(lambda _, __, out: seen.update(cmap=out))
    logits = discriminator(*given())
    expected, stats = outputs(NAME), load(NAME).info["stats"]
    assert relative(logits, expected["logits"]) <= FORWARD
    assert len(seen) == 5 + 3
    for key, value in seen.items():
        stored = expected.get(key, expected.get(f"{key}.slice"))
        if stored is not None:
            assert relative(cut(value, stats[key].get("slice")), stored) <= FORWARD, key
        assert value.double().norm().item() == pytest.approx(stats[key]["l2"], rel=FORWARD), key


@pytest.mark.parametrize(
    ("key", "changes", "count"),
    [
        ("logits_mbstd2", {"group_size": 2}, 4),
        ("logits_clamp0.4", {"conv_clamp": 0.4}, 4),
        ("logits_batch_sub", {}, 2),
    ],
)
@torch.no_grad()
def test_variants(key, changes, count):
    logits = golden_discriminator(**changes)(*(part[:count] for part in given()))
    assert relative(logits, outputs(NAME)[key]) <= FORWARD


def test_r1_gradients():
    discriminator = golden_discriminator()
    image, raw, camera = given()
    image, raw = image.requires_grad_(), raw.clone().requires_grad_()
    logits = discriminator(image, raw, camera)
    d_image, d_raw = torch.autograd.grad(logits.sum(), (image, raw), create_graph=True)
    expected = outputs(NAME)
    assert relative(d_image[:, :, ::8, 1::8], expected["r1_grad_image.slice"]) <= 1e-5
    assert relative(d_raw, expected["r1_grad_image_raw"]) <= 1e-5
    penalty = d_image.square().sum((1, 2, 3)) + d_raw.square().sum((1, 2, 3))
    assert relative(penalty, expected["r1_penalty"].reshape(-1)) <= 1e-5
    losses = {"softplus": F.softplus(-logits).mean(), "r1": (penalty * 0.5).mean()}
    for kind, loss in losses.items():
        assert_gradients(discriminator, kind, loss)


def assert_gradients(discriminator, kind, loss):
    golden = load(NAME).info["gradients"][kind]
    assert loss.item() == pytest.approx(golden["loss"], rel=1e-5)
    parameters = dict(discriminator.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
    assert set(parameters) == set(golden["per_parameter"])
    for (key, _), gradient in zip(parameters.items(), gradients, strict=True):
        expected = golden["per_parameter"][key]
        if expected is None:
            assert gradient is None or not gradient.any(), key
            continue
        norm = expected["l2"]
        assert gradient.double().norm().item() == pytest.approx(norm, rel=GRADIENT, abs=1e-12), key
        first = gradient.flatten()[:4]
        assert (first - torch.tensor(expected["first"])).abs().max() <= GRADIENT * norm + 1e-12, key


@torch.no_grad()
def test_camera_noise(monkeypatch):
    """The logits equal the official ones, but the caller's labels are not modified."""
    image, raw, camera = given()
    before = camera.clone()
    monkeypatch.setattr(torch, "randn_like", lambda c: hashfill(NAME, "cnoise", list(c.shape)))
    discriminator = golden_discriminator(camera_noise=0.5)
    logits = discriminator(image, raw, camera)
    assert torch.equal(camera, before)
    assert relative(discriminator._noisy(camera), outputs(NAME)["c_after_noise"]) <= FORWARD
    key = next(key for key in outputs(NAME) if "noise" in key and "logits" in key)
    assert relative(logits, outputs(NAME)[key]) <= FORWARD


def test_bad_inputs():
    discriminator = golden_discriminator()
    image, raw, camera = given()
    with pytest.raises(ValueError, match="image must have shape"):
        discriminator(image[..., :64], raw, camera)
    with pytest.raises(ValueError, match="image_raw must have shape"):
        discriminator(image, raw[:2], camera)
    with pytest.raises(ValueError, match="one row per sample"):
        discriminator(image, raw, camera[:3])
    arguments = copy.deepcopy(load(NAME).info["init_kwargs"])
    with pytest.raises(ValueError, match=r"unknown arguments \['colour'\]"):
        discriminator_from_official({**arguments, "colour": 1})
    with pytest.raises(ValueError, match="power of two"):
        discriminator_from_official({**arguments, "img_resolution": 100})
