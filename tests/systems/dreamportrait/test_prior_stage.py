"""Tests of the stage that fits a text prior in W and puts it into the mapper."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dreamportrait.core.config import Prior, Stage
from dreamportrait.data.dataset import WorldPictures
from dreamportrait.eg3d.folder import load_generator
from dreamportrait.prior.one_pass import Answers
from dreamportrait.systems.dreamportrait import build, prior
from dreamportrait.systems.dreamportrait.conditioning import ConditioningConfig
from dreamportrait.systems.dreamportrait.config import contradictions, load_config
from dreamportrait.systems.dreamportrait.generator import PortraitGenerator
from dreamportrait.systems.dreamportrait.mapper import PriorMapper
from dreamportrait.systems.dreamportrait.preflight import missing
from dreamportrait.systems.dreamportrait.prior import fit_prior
from dreamportrait.text.loading import load_clip, load_text_encoder
from dreamportrait.weights.registry import locate

SMALL = {"faces": 130, "captions": 2, "answers": 40, "batch": 8, "steps": 2}
SMALL |= {"inverter_steps": 3, "content_steps": 3, "flow_steps": 3, "one_pass_steps": 3}
MINI = Path(__file__).parents[3] / "configs" / "dreamportrait" / "mini.yaml"
STAGES = ["model.conditioning.mapper_blocks=2", "stages=[{name: speak, prior: {}}, {name: adapt, images: 16}]"]


@pytest.fixture(scope="module")
def pictures() -> WorldPictures:
    return WorldPictures("train", 24)


def portrait() -> PortraitGenerator:
    torch.manual_seed(0)
    generator = load_generator(locate("mini/eg3d"))
    return PortraitGenerator.equip(
        generator, ConditioningConfig(text_width=96, mapper_blocks=2, mapper_width=32)
    ).eval()


def fitted(made: PortraitGenerator, pictures: WorldPictures, folder: Path, **changes: object) -> PriorMapper:
    encoder = load_text_encoder("mini/clip-a")
    settings = Prior(**{**SMALL, **changes})
    fit_prior(settings, made, pictures, encoder, lambda: load_clip("mini/clip-a"), folder, seed=0)
    assert isinstance(made.mapper, PriorMapper)
    return made.mapper


def heard() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(3, 128), load_text_encoder("mini/clip-a").encode(["a man", "a woman", "a hat"]).eot


def test_a_new_mapper_leaves_w_as_it_is() -> None:
    w, eot = heard()
    mapper = portrait().mapper
    assert mapper is not None and torch.equal(mapper(w, eot), w)


@pytest.mark.lengthy
@pytest.mark.parametrize(("pairing", "stay"), [("captions", 0), ("captions", 0.5), ("embeddings", 0.5)])
def test_the_stage_fills_the_mapper_and_continues(
    pictures: WorldPictures, tmp_path: Path, pairing: str, stay: float
) -> None:
    w, eot = heard()
    mapper = fitted(portrait(), pictures, tmp_path, pairing=pairing, stay=stay)
    assert (tmp_path / "gaussian").is_dir() == (stay > 0)
    assert mapper.space.scale.std() > 0 and not torch.equal(mapper(w, eot), w)
    assert torch.equal(mapper.follow(w, eot, 2, 2.0), mapper.follow(w, eot, 2, 2.0))
    assert not any(p.requires_grad for p in mapper.flow.parameters())

    # Another process, or the same command given again, reads the result.
    again = fitted(portrait(), pictures, tmp_path, pairing=pairing, stay=stay)
    assert torch.equal(again(w, eot), mapper(w, eot))

    # A stopped stage continues from what is stored: here without the end of the flow and everything after it.
    for path in (tmp_path / prior.MAPPER, tmp_path / "answers.safetensors"):
        path.unlink()
    for name in ("flow", "one-pass", *(["gaussian"] if stay else [])):
        (tmp_path / name / "state.pt").unlink()
    renders = (tmp_path / "renders" / "0000000.safetensors").stat().st_mtime_ns
    third = fitted(portrait(), pictures, tmp_path, pairing=pairing, stay=stay)
    assert torch.equal(third(w, eot), mapper(w, eot))
    assert (tmp_path / "renders" / "0000000.safetensors").stat().st_mtime_ns == renders


def test_a_prior_that_leaves_the_generator_s_range_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    x, text = torch.ones(4, 3), torch.zeros(4, 2)
    prior._check_range(Answers(x, text, 1.4 * x))
    assert not caplog.records
    prior._check_range(Answers(x, text, 2 * x))
    assert "2.0 times as far from the mean" in caplog.text and "lower stages.0.prior.scale" in caplog.text


def test_captions_are_repeated_if_a_picture_has_too_few() -> None:
    class Few:
        def captions(self, index: int) -> list[str]:
            return ["a", "b"]

    fitting = prior._Fitting.__new__(prior._Fitting)
    fitting.settings, fitting.pictures = Prior(captions=5), Few()  # type: ignore[assignment]
    assert fitting._captions(0) == ["a", "b", "a", "b", "a"]


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ("model.conditioning.mapper_blocks=0", "stages.0.prior"),
        ("model.conditioning.global_path=false", "stages.0.prior"),
        ("model.conditioning.plain_mapper=true", "model.conditioning.plain_mapper"),
        ("stages=[{name: adapt, images: 16}, {name: speak, prior: {}}]", "stages.1.prior"),
        ("stages=[{name: speak, prior: {}, images: 16}]", "stages.0.images"),
        ("stages=[{name: nothing}]", "stages.0.images"),
        ("stages=[{name: speak, prior: {}, guidance: true}]", "stages.0.prior"),
    ],
)
def test_contradictions_are_named(change: str, keys: str) -> None:
    from dreamportrait.core.settings import ConfigError

    with pytest.raises(ConfigError) as error:
        load_config(MINI, [*STAGES, change])
    assert keys in str(error.value)


def test_too_few_faces_are_refused_before_anything_starts() -> None:
    config = load_config(MINI, [*STAGES, "stages.0.prior.faces=50"])
    assert [problem.keys for problem in missing(config)] == [("stages.0.prior.faces",)]
    assert not missing(load_config(MINI, STAGES))


def test_a_prior_stage_counts_no_images() -> None:
    config = load_config(MINI, STAGES)
    assert config.total_images == 16 and config.stage_at(0).name == "adapt" and config.prior == Prior()
    assert not contradictions(config)
    assert isinstance(config.stages[0], Stage) and config.stage_ends() == [0, 16]


def test_the_identity_is_kept_relative_to_the_prior() -> None:
    made = portrait()
    mapper = made.mapper
    assert isinstance(mapper, PriorMapper)
    torch.nn.init.normal_(mapper.net.leave.weight, std=0.1)
    text = load_text_encoder("mini/clip-a").encode(["a man"])
    z, front = torch.randn(1, made.config.z_dim), made.config.around([0.0])
    assert made.moved(z, front, text).abs().sum() > 0
    assert not made.moved(z, front, text, mapper).any()


def test_a_model_without_a_prior_refuses_steps() -> None:
    generator = load_generator(locate("mini/eg3d"))
    plain = PortraitGenerator.equip(generator, ConditioningConfig(text_width=96)).eval()
    text = load_text_encoder("mini/clip-a").encode(["a man"])
    with pytest.raises(ValueError, match="steps=3"):
        plain.portray(torch.randn(1, plain.config.z_dim), text, steps=3)


def test_sizes_in_the_configuration_reach_the_network() -> None:
    config = load_config(MINI, STAGES)
    made = build.conditioning_config(config, 96)
    assert made.mapper_blocks == 2 and made.text_width == 96
