"""Tests of the methods: each moves a head to what its guide knows. The guides are stand-ins that know a grey."""

from pathlib import Path

import pytest
import torch
from tiny_baselines import BRIGHT, DARK, GREYS, GreyPrior, config, tools

from dreamportrait.baselines import methods
from dreamportrait.baselines.config import Baselines
from dreamportrait.baselines.field import Field, opacity_entropy
from dreamportrait.baselines.methods import augmented, distillation, make_head
from dreamportrait.baselines.names import CLIP_W, LIFTING, METHODS, ONE_PASS, SDS, SDS_W, SJC, choose
from dreamportrait.baselines.tools import Tools, remembered
from dreamportrait.core.settings import ConfigError, load
from dreamportrait.eg3d.planes import Planes


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    return tools(tmp_path_factory.mktemp("tools"))


def grey(given: Tools, method: str, prompt: str, settings: Baselines | None = None) -> float:
    """Return the mean colour of the front view of a head."""
    head = make_head(method, given, settings or config(), prompt, seed=0, number=1)
    with torch.no_grad():
        return float(head.view(given.front).image.mean())


@pytest.mark.lengthy
@pytest.mark.parametrize("method", [SDS, SJC])
def test_a_field_becomes_what_the_diffusion_model_knows(given: Tools, method: str) -> None:
    # Forty steps with noise do not arrive; a head that is not guided stays within 0.1 of its start.
    assert grey(given, method, DARK) < GREYS[DARK] + 0.25 < GREYS[BRIGHT] - 0.25 < grey(given, method, BRIGHT)


@pytest.mark.lengthy
@pytest.mark.parametrize("method", [SDS_W, CLIP_W])
def test_w_moves_towards_the_prompt(given: Tools, method: str) -> None:
    start = float(given.generator.render(*_planes(given), w=_ws(given)).image.mean())
    for prompt in (DARK, BRIGHT):
        # Forty steps with a falling rate go most of the way; half of it cannot be chance.
        assert abs(grey(given, method, prompt) - GREYS[prompt]) < 0.5 * abs(start - GREYS[prompt])


@pytest.mark.lengthy
@pytest.mark.parametrize(("method", "section"), [(SDS_W, "sds_w"), (CLIP_W, "clip_w")])
def test_a_leash_keeps_w(given: Tools, method: str, section: str) -> None:
    start = float(given.generator.render(*_planes(given), w=_ws(given)).image.mean())
    free, held = (grey(given, method, BRIGHT, config(**{section: {"leash": leash}})) for leash in (0, 1e5))
    assert abs(held - start) < 0.2 * abs(free - start)


@pytest.mark.lengthy
def test_a_picture_is_lifted(given: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    size = given.pipe.generator.config.image_resolution
    monkeypatch.setattr(methods, "draw_picture", lambda tools, prompt, s, seed: torch.full((1, 3, size, size), 0.5))
    before = config(lifting={"tuning_steps": 1})
    assert abs(grey(given, LIFTING, BRIGHT) - 0.5) < abs(grey(given, LIFTING, BRIGHT, before) - 0.5)


def test_one_pass_is_the_pipeline(given: Tools) -> None:
    head = make_head(ONE_PASS, given, config(), "a bright face", seed=3, number=2)
    with torch.no_grad():  # with gradients, convolutions round otherwise
        own = given.pipe.generator.portray(given.latent(3, 2), given.pipe.encode_prompt("a bright face"))
    assert isinstance(head, Planes) and torch.equal(head.planes, own.planes)


@pytest.mark.lengthy
@pytest.mark.parametrize("method", [SDS, SDS_W, CLIP_W])
def test_a_head_depends_on_its_seed_and_number_alone(given: Tools, method: str) -> None:
    short = config(sds={"steps": 3}, sds_w={"steps": 3}, clip_w={"steps": 3})
    first = grey(given, method, DARK, short)
    torch.rand(5)
    assert grey(given, method, DARK, short) == first
    other = make_head(method, given, short, DARK, seed=0, number=2)
    assert float(other.view(given.front).image.mean()) != first


def test_settings_reach_the_guide(given: Tools) -> None:
    prior = given.prior
    assert isinstance(prior, GreyPrior)
    prior.asked.clear()
    guide = distillation(given, "sds", config(sds={"scale": 7, "t_min": 0.5, "rescale": 0.25}).sds)
    assert (guide.settings.t_min, guide.settings.rescale, guide.settings.weight) == (0.5, 0.25, "sigma_squared")
    guide(torch.zeros(1, 3, 16, 16), [DARK], given.front)
    assert prior.asked == [7]


def test_a_field_has_the_sizes_of_the_generator_and_none_of_its_weights(given: Tools) -> None:
    c = given.generator.config
    view = Field(c).view(given.front)
    assert view.image.shape == (1, 3, c.image_resolution, c.image_resolution)
    assert view.depth.shape == view.weights.shape == (1, 1, c.render_resolution, c.render_resolution)
    assert not {id(x) for x in Field(c).parameters()} & {id(x) for x in given.generator.parameters()}


def test_entropy_and_roughness_by_hand(given: Tools) -> None:
    # 1 bit at one half; log2(4) / 4 + 3 / 4 log2(4 / 3) at a quarter; nearly nothing at full and empty rays, which are
    # clamped to 1e-4, where it is 0.0015.
    values = torch.tensor([0.5, 0.25, 0.0, 1.0])
    found = [float(opacity_entropy(x.view(1, 1, 1, 1))) for x in values]
    assert found == pytest.approx([1, 0.811278, 0.0014730, 0.0014730], rel=2e-3)
    field = Field(given.generator.config)
    with torch.no_grad():
        field.planes.copy_(torch.arange(field.planes.shape[-1]).expand_as(field.planes))
    assert float(field.roughness().detach()) == 1  # steps of 1 along one axis, none along the other


def test_augmented_copies_differ_and_carry_gradients() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 3, 16, 16).requires_grad_()
    copies = augmented(image, 4)
    assert copies.shape == (4, 3, 16, 16)
    assert all(not torch.equal(copies[0], other) for other in copies[1:])
    copies.sum().backward()
    assert image.grad is not None and (image.grad != 0).float().mean() > 0.8  # borders may fall out of the picture


def test_prompts_are_encoded_once() -> None:
    asked: list[list[str]] = []

    def embed(prompts: list[str]) -> torch.Tensor:
        asked.append(prompts)
        return torch.arange(float(len(prompts)))[:, None, None]

    found = remembered(embed)
    for _ in range(3):
        assert found(["a", "b"]).flatten().tolist() == [0, 1]
    assert found(["b"]).flatten().tolist() == [1]
    found(["c"])
    assert asked == [["a", "b"], ["c"]]


# Names and settings.


def test_choosing_methods() -> None:
    assert choose(None) == METHODS and choose("sjc, one-pass") == (ONE_PASS, SJC)
    with pytest.raises(ValueError, match="--methods sds,vsd: no method 'vsd'; must be some of one-pass,sds,sjc"):
        choose("sds,vsd")


def test_an_unknown_method(given: Tools) -> None:
    with pytest.raises(ValueError, match="method 'vsd': must be one of one-pass"):
        make_head("vsd", given, config(), DARK, 0, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("sds.t_min=0.99", r"sds\.t_min and sds\.t_max: 0\.99 and 0\.98: t_min must be below t_max"),
        ("sds.step=3", r"sds\.step: .*unknown"),
        ("clip_w.copies=0", r"clip_w\.copies"),
    ],
)
def test_wrong_settings(change: str, message: str) -> None:
    path = Path(__file__).resolve().parents[2] / "configs" / "baselines" / "mini.yaml"
    with pytest.raises(ConfigError, match=message):
        load(Baselines, path, [change])


def _ws(given: Tools) -> torch.Tensor:
    return given.space.leave(given.own_x(0, 1))[:, None].expand(-1, given.generator.num_ws, -1)


def _planes(given: Tools) -> tuple[torch.Tensor, torch.Tensor]:
    return given.generator.synthesize_planes(_ws(given)), given.front
