"""Tests of the text-conditioned generator: equal to plain EG3D before training, its two text paths, its ablations."""

import copy
import re

import pytest
import torch
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from tiny_portraits import ABLATIONS, GENERATOR, TEXT, WIDTH, equip, latents, plain
from torch import Tensor

from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.systems.dreamportrait.conditioning import ConditioningConfig
from dreamportrait.systems.dreamportrait.generator import PortraitGenerator
from dreamportrait.text.encoder import TextEncoder, TextFeatures


@pytest.fixture(scope="module")
def given() -> tuple[Tensor, Tensor]:
    return latents()


@pytest.mark.parametrize("axes", ["official", "xy_yz_zx"])
@pytest.mark.parametrize("ablation", list(ABLATIONS))
@torch.no_grad()
def test_a_fresh_one_is_the_plain_generator_bit_for_bit(given, ablation, axes):
    config = GeneratorConfig.from_dict(GENERATOR.to_dict() | {"plane_axes": axes})
    generator = equip(ABLATIONS[ablation], trained=False, config=config)
    for psi in (1.0, 0.6):
        for actual, expected in zip(
            generator(*given, TEXT, truncation_psi=psi), plain(config)(*given, psi), strict=True
        ):
            assert torch.equal(actual, expected)


@torch.no_grad()
def test_bit_for_bit_in_low_precision_too(given):
    config = GeneratorConfig.from_dict(GENERATOR.to_dict() | {"precision": "bfloat16", "num_low_precision": 2})
    out = equip(trained=False, config=config)(*given, TEXT)
    assert torch.equal(out.image, plain(config)(*given).image)
    assert not torch.equal(out.image, plain()(*given).image)


@pytest.mark.parametrize("ablation", list(ABLATIONS))
@torch.no_grad()
def test_a_trained_one_listens_to_text_and_without_it_is_the_plain_generator(given, ablation):
    generator = equip(ABLATIONS[ablation])
    expected = plain()(*given)
    for actual, wanted in zip(generator(*given, None), expected, strict=True):
        assert torch.equal(actual, wanted)
    assert (generator(*given, TEXT).image - expected.image).abs().mean() > 0.01


@torch.no_grad()
def test_the_two_paths(given):
    """The end-of-text feature must act on w alone, the word features on the planes alone."""
    generator, (z, camera) = equip(), given
    other_eot = TextFeatures(TEXT.words, TEXT.eot + torch.randn(TEXT.eot.shape), TEXT.mask)
    other_words = TextFeatures(TEXT.words + 1, TEXT.eot, TEXT.mask)
    ws = generator.map(z, camera, TEXT)
    assert ws.shape == (2, generator.num_ws, GENERATOR.w_dim)
    assert (ws == ws[:, :1]).all()
    assert torch.equal(generator.map(z, camera, other_words), ws)
    assert not torch.equal(generator.map(z, camera, other_eot), ws)
    planes = generator.synthesize_planes(ws, TEXT)
    assert torch.equal(generator.synthesize_planes(ws, other_eot), planes)
    assert not torch.equal(generator.synthesize_planes(ws, other_words), planes)


@torch.no_grad()
def test_ablations_leave_out_what_they_say():
    names = {ablation: list(equip(settings).listeners().state_dict()) for ablation, settings in ABLATIONS.items()}

    def parts(ablation: str, start: str) -> set[str]:
        return {name.split(".")[1] for name in names[ablation] if name.startswith(start)}

    assert parts("full", "adapters") == {"4", "8", "16"}
    assert parts("two adapters", "adapters") == {"4", "16"}
    assert len(parts("local only", "adapters")) == 3 and not parts("local only", "mapper")
    assert len(parts("global only", "mapper")) == 6 and not parts("global only", "adapters")
    assert any("gamma" in name for name in names["full"]) and not any("gamma" in name for name in names["no gate"])
    assert names["no pooling"] == names["full"]


def test_six_adapters_at_full_size():
    assert ConditioningConfig(text_width=1024).sites([4, 8, 16, 32, 64, 128, 256]) == (4, 8, 16, 32, 64, 128)
    with torch.device("meta"):
        generator = PortraitGenerator(TriPlaneGenerator(GeneratorConfig()), ConditioningConfig(text_width=1024))
    assert list(generator.adapters) == ["4", "8", "16", "32", "64", "128"]
    shapes = {name: list(value.shape) for name, value in generator.listeners().state_dict().items()}
    assert shapes["adapters.64.read.weight"] == [192, 512] and shapes["adapters.128.read.weight"] == [192, 256]
    assert shapes["adapters.4.key.weight"] == [64, 1024] and shapes["mapper.fuse.weight"] == [512, 1536]


@torch.no_grad()
def test_the_mapper_moves_as_faces_differ():
    """The mapper's spread must turn independent unit steps into steps with the covariance of w."""
    generator = equip(trained=False)
    z, front = torch.randn(20_000, GENERATOR.z_dim), latents()[1][:1].expand(20_000, -1)
    w = generator.generator.map(z, front)[:, 0]
    steps = torch.randn(20_000, GENERATOR.w_dim) @ generator.mapper.spread
    wanted = torch.cov(w.T)
    # Estimates from 20 000 and 10 000 draws have relative errors of about 1 / sqrt(10 000); the cameras differ too.
    assert (torch.cov(steps.T) - wanted).norm() < 0.1 * wanted.norm()


@torch.no_grad()
def test_how_far_text_moves_w(given):
    generator = equip()
    z, camera = given
    step = (generator.map(z, camera, TEXT) - generator.map(z, camera, None))[:, 0]
    torch.testing.assert_close(generator.moved(z, camera, TEXT) @ generator.mapper.spread, step)


@torch.no_grad()
def test_the_plain_mapper_starts_as_the_identity(given):
    generator = equip({"plain_mapper": True}, trained=False)
    w = generator.map(*given, None)
    # Its layers add and remove a shift of 14, so a coordinate is rounded as numbers of that size are.
    torch.testing.assert_close(generator.map(*given, TEXT), w, rtol=0, atol=1e-5)


def test_the_plain_mapper_learns_the_text_at_once(given):
    generator = equip({"plain_mapper": True, "local_path": False}, trained=False)
    learning = {name for name in moving(generator, given) if "mapper.fuse" in name}
    assert learning == {"mapper.fuse.weight", "mapper.fuse.bias"}
    with torch.no_grad():
        generator.mapper.fuse.weight += 0.05 * torch.randn(generator.mapper.fuse.weight.shape)
    assert moving(generator, given) == {name for name, _ in generator.listeners().named_parameters()}


def moving(generator: PortraitGenerator, given: tuple[Tensor, Tensor]) -> set[str]:
    """Return the names of the new parameters whose gradient is not zero."""
    generator.zero_grad()
    out = generator(*given, TEXT)
    torch.manual_seed(2)
    (out.image * torch.randn(out.image.shape)).sum().backward()
    return {name for name, p in generator.listeners().named_parameters() if p.grad is not None and p.grad.any()}


def test_what_learns_in_the_first_steps(given):
    """At first only the gates and the mapper's last layer learn, because all else acts through zeros. Then all learn.

    The keys' biases never learn, because a softmax cancels a number that is added to all its scores.
    """
    generator = equip(trained=False)
    gates = {f"adapters.{r}.gamma" for r in (4, 8, 16)}
    assert moving(generator, given) == gates | {"mapper.fuse.weight", "mapper.fuse.bias"}
    with torch.no_grad():
        for name, parameter in generator.listeners().named_parameters():
            if name in gates or name == "mapper.fuse.weight":
                parameter += 0.05 * torch.randn(parameter.shape)
    everything = {name for name, _ in generator.listeners().named_parameters() if not name.endswith("key.bias")}
    assert moving(generator, given) >= everything
    assert all(p.grad.any() for name, p in generator.generator.named_parameters() if "noise_strength" not in name)


def test_listeners_are_the_modules_themselves():
    generator = equip()
    own = {id(p) for p in generator.generator.parameters()}
    new = {id(p) for p in generator.listeners().parameters()}
    assert not own & new
    assert own | new == {id(p) for p in generator.parameters()}


@torch.no_grad()
def test_another_camera_can_condition(given):
    generator, (z, camera) = equip(), given
    ws = generator.map(z, camera.flip(0), TEXT)
    expected = generator.render(generator.synthesize_planes(ws, TEXT), camera, w=ws)
    assert torch.equal(generator(z, camera, TEXT, conditioning_camera=camera.flip(0)).image, expected.image)
    assert not torch.equal(generator(z, camera, TEXT).image, expected.image)


@torch.no_grad()
def test_truncation_comes_before_text(given):
    """At psi 0 all portraits have the average w, and the text then changes it like any other w."""
    generator, (z, camera) = equip(), given
    average = generator.generator.backbone.mapping.w_avg.expand(2, -1)
    assert torch.equal(generator.map(z, camera, TEXT, 0.0)[:, 3], generator.mapper(average, TEXT.eot))
    before = generator.generator.backbone.mapping.w_avg.clone()
    generator.map(z, camera, TEXT, update_average=True)
    assert not torch.equal(generator.generator.backbone.mapping.w_avg, before)


@torch.no_grad()
def test_prompts_of_any_kind(given):
    """Empty prompts, other scripts, emoji and too long prompts must take one pass and change no parameter."""
    torch.manual_seed(0)
    vision = {"image_size": 32, "width": 16, "layers": 1, "head_width": 8, "patch_size": 16}
    clip = CLIP(8, vision, {"context_length": 77, "vocab_size": 49408, "width": WIDTH, "heads": 2, "layers": 2})
    encoder = TextEncoder(clip.eval(), SimpleTokenizer())
    generator, (z, camera) = equip(), given
    before = copy.deepcopy(generator.state_dict())
    for prompt in ("", "une femme à lunettes", "一个戴帽子的男人", "😀", "red hair " * 80):
        out = generator(z[:1], camera[:1], encoder.encode([prompt]))
        assert bool(out.image.isfinite().all())
        short = generator(z[:1], camera[:1], encoder.encode([prompt], shorten=True))  # sums in another order
        torch.testing.assert_close(short.image, out.image, rtol=0, atol=1e-4 * float(out.image.abs().max()))
    assert all(torch.equal(before[name], value) for name, value in generator.state_dict().items())


def test_adapters_are_called_between_blocks(given):
    """Adapters must run on the features of each block except the last; their result enters the next block."""
    generator, seen = plain(), []

    def watch(resolution: int, x: Tensor) -> Tensor:
        seen.append((resolution, tuple(x.shape)))
        return x

    ws = generator.map(*given)
    with torch.no_grad():
        assert torch.equal(generator.synthesize_planes(ws, between=watch), generator.synthesize_planes(ws))
    assert seen == [(4, (2, 12, 4, 4)), (8, (2, 12, 8, 8)), (16, (2, 12, 16, 16))]


def test_text_that_does_not_fit(given):
    generator, (z, camera) = equip(), given
    wide = TextFeatures(torch.zeros(2, 4, 7), torch.zeros(2, 7), TEXT.mask)
    with pytest.raises(ValueError, match="text features have 7 channels, but this generator was equipped for 6"):
        generator.map(z, camera, wide)
    one = TextFeatures(TEXT.words[:1], TEXT.eot[:1], TEXT.mask[:1])
    with pytest.raises(
        ValueError, match=re.escape("text.eot must have shape [2, 6] (one prompt for each sample of the batch)")
    ):
        generator(z, camera, one)
    with pytest.raises(ValueError, match=re.escape("text.mask must have shape [2, 4] (as text.words), got [2, 3]")):
        generator(z, camera, TextFeatures(TEXT.words, TEXT.eot, TEXT.mask[:, :3]))
    with pytest.raises(TypeError, match=re.escape("text.mask must be bool, True for words, got torch.float32")):
        generator(z, camera, TextFeatures(TEXT.words, TEXT.eot, TEXT.mask.float()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"global_path": False, "local_path": False}, "both off, so text would have no effect"),
        ({"adapters": ()}, "adapters is empty; name resolutions, or turn local_path off"),
        ({"adapters": (8, 4)}, "adapters=[8, 4]: must be ascending"),
        ({"adapters": (8, 32)}, "adapters=[8, 32]: [32] not among the backbone's [4, 8, 16]"),
        ({"heads": 3}, "heads=3: must divide token_dim=8"),
        ({"text_width": 0}, "text_width must be at least 1, got 0"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        PortraitGenerator.equip(plain(), ConditioningConfig(**({"text_width": WIDTH, "token_dim": 8} | settings)))
