"""Tests of how the parts of a run are built from a configuration: text features, networks, guidance."""

from pathlib import Path

import click.testing
import pytest
import torch
from diffusion_folders import write_own
from safetensors.torch import load_file
from toy_run import CONFIG, arguments, write_sources

import train
from dreamportrait.core.errors import WeightsError
from dreamportrait.data.dataset import Words, make_pictures
from dreamportrait.guidance.distillation import d_sds_loss, draw, sjc_loss
from dreamportrait.guidance.guides import ClipGuide, DiffusionGuide
from dreamportrait.systems.dreamportrait import build
from dreamportrait.systems.dreamportrait.config import Config, load_config
from dreamportrait.systems.dreamportrait.preflight import missing
from dreamportrait.text.loading import load_text_encoder
from dreamportrait.text.store import write_store

CPU = torch.device("cpu")
WORDS = [Words(3, 0, "face 3"), Words(1, 1, "a man, 1")]


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    folder = write_sources(tmp_path_factory.mktemp("sources"))
    write_own(folder / "DIFFUSION")
    return folder


def config(sources: Path, *changes: str) -> Config:
    return load_config(CONFIG, arguments(sources, sources / "runs", *changes)[3::2])


# Text.


@pytest.mark.lengthy
def test_captions_are_encoded_as_they_are_needed(sources):
    c = config(sources)
    text, encoder = build.make_text(c, CPU, make_pictures(c.data)), load_text_encoder(c.text.clip)
    found, expected = text.encode([each.prompt for each in WORDS]), encoder.encode(["face 3", "a man, 1"])
    assert torch.equal(found.words, expected.words) and torch.equal(found.mask, expected.mask)
    assert torch.equal(text.encode(["a hat"]).eot, encoder.encode(["a hat"]).eot)
    assert build.text_width(c) == found.eot.shape[1] == 8


@pytest.fixture(scope="module")
def stored(sources) -> Config:
    plain = config(sources)
    pictures = make_pictures(plain.data)
    captions = [caption for i in range(len(pictures)) for caption in pictures.captions(i)]
    write_store(sources / "STORE", load_text_encoder(plain.text.clip), plain.text.clip, captions)
    return config(sources, f"text.store={sources / 'STORE'}")


def test_sample_prompts_must_be_stored(sources, stored):
    """A run with a store loads no text tower, which may not be there."""
    key = "samples.prompts"
    [problem] = [found for found in missing(stored) if found.keys == (key,)]
    assert "STORE has no features of 'a woman with red hair', 'a man with a hat'; encode the captions" in problem.text
    for change in ("samples.prompts=[face 3]", "trainer.sample_every_images=0"):
        c = config(sources, f"text.store={sources / 'STORE'}", change)
        assert not [found for found in missing(c) if found.keys == (key,)]


def test_guidance_may_have_a_precision_of_its_own(sources):
    names = ["guidance.kind=sds", f"guidance.source={sources / 'DIFFUSION'}", "trainer.precision=float16"]
    for change, expected in ((), torch.float16), (("guidance.precision=float32",), torch.float32):
        guide = build.make_guide(config(sources, *names, *change), CPU)
        assert next(guide.prior.unet.parameters()).dtype == expected


def test_stored_captions_need_no_text_tower(sources, stored, monkeypatch):
    expected = build.make_text(config(sources), CPU, make_pictures(stored.data)).encode([each.prompt for each in WORDS])

    def refuse(*_: object) -> None:
        raise AssertionError("the text tower was loaded")

    monkeypatch.setattr(build.loading, "load_text_encoder", refuse)
    text = build.make_text(stored, CPU, make_pictures(stored.data))
    found = text.encode([each.prompt for each in WORDS])
    # The store has half precision, which keeps 11 bits.
    torch.testing.assert_close(
        found.words * found.mask[..., None], expected.words * expected.mask[..., None], rtol=1e-3, atol=1e-3
    )
    assert torch.equal(text.encode(["face 3"]).eot, found.eot[:1])
    with pytest.raises(AssertionError, match="the text tower was loaded"):
        text.encode(["a prompt that no face has"])
    assert build.text_width(stored) == 8


def test_a_store_of_other_captions_is_refused(sources, tmp_path):
    c = config(sources, f"text.store={tmp_path / 'store'}")
    write_store(tmp_path / "store", load_text_encoder(c.text.clip), c.text.clip, ["face 3"])
    with pytest.raises(WeightsError, match="has no features of"):
        build.make_text(c, CPU, make_pictures(c.data))


# Networks.


def test_networks_are_the_pretrained_ones_and_equipped(sources):
    generator, critic = build.make_networks(config(sources), 8)
    for name, network in (("generator", generator.generator), ("discriminator", critic.discriminator)):
        for key, value in load_file(sources / f"PRETRAINED/{name}.safetensors").items():
            assert torch.equal(network.state_dict()[key], value), key
        assert all(p.requires_grad for p in network.parameters()) and network.training
    assert list(generator.adapters) == ["4", "8"] and not critic.reads
    again, _ = build.make_networks(config(sources), 8)
    assert all(torch.equal(a, b) for a, b in zip(generator.parameters(), again.parameters(), strict=True))
    other, _ = build.make_networks(config(sources, "run.seed=1"), 8)
    assert not all(torch.equal(a, b) for a, b in zip(generator.parameters(), other.parameters(), strict=True))


def test_settings_reach_the_networks(sources):
    changes = ["model.conditioning.adapters=[8]", "model.conditioning.global_path=false"]
    changes += ["loss.text_aware_discriminator=true", "trainer.precision=bfloat16"]
    generator, critic = build.make_networks(config(sources, *changes), 8)
    assert list(generator.adapters) == ["8"] and generator.mapper is None and critic.reads
    assert generator.config.precision == critic.discriminator.config.precision == "bfloat16"


# Guidance.


def images() -> torch.Tensor:
    numbers = torch.Generator().manual_seed(0)
    return (torch.rand(2, 3, 16, 16, generator=numbers) * 2 - 1).requires_grad_()


def slope(loss: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(loss, of)[0]


def guided(sources: Path, kind: str, *changes: str) -> Config:
    changes = (f"guidance.kind={kind}", f"guidance.source={sources / 'DIFFUSION'}", *changes)
    return config(sources, "guidance.t_min=0.2", "guidance.weight=sigma", "guidance.rescale=0.5", *changes)


@pytest.mark.parametrize("kind", ["sds", "sjc"])
@pytest.mark.lengthy
def test_diffusion_guides_are_the_losses_with_the_settings(sources, kind):
    c = guided(sources, kind)
    guide = build.make_guide(c, CPU)
    assert isinstance(guide, DiffusionGuide)
    x, prompts, cameras = images(), ["face 3", "a man"], make_pictures(c.data).cameras[:2]
    torch.manual_seed(7)
    found = slope(guide(x, prompts, cameras), x)
    torch.manual_seed(7)
    drawn = draw(guide.prior, 2, 0.2, 0.98)
    given = (guide.prior, x, guide.prior.embed(prompts), guide.prior.embed([""]), *drawn)
    if kind == "sds":
        loss = d_sds_loss(*given, scale=10.0, weighting="sigma", rescale=0.5)
    else:
        loss = sjc_loss(*given, scale=10.0)
    assert torch.equal(found, slope(loss, x)) and found.abs().max() > 0


@pytest.mark.lengthy
def test_views_are_added_to_prompts_where_asked(sources):
    c = guided(sources, "sds", "guidance.views=true")
    guide, asked = build.make_guide(c, CPU), []
    embed = guide.prior.embed

    def listen(prompts: list[str]) -> torch.Tensor:
        asked.extend(prompts)
        return embed(prompts)

    guide.prior.embed = listen
    guide(images(), ["face 3", "a man"], make_pictures(c.data).cameras[:2])
    assert asked == ["face 3, front view", "a man, front view"]


def test_a_clip_guide_compares_with_the_text_encoders_clip(sources):
    c = guided(sources, "clip")
    guide = build.make_guide(c, CPU)
    assert isinstance(guide, ClipGuide)
    x = images()
    loss = guide(x, ["face 3", "a man"], torch.zeros(2, 25))
    assert 0 < loss.item() < 2 and slope(loss, x).abs().max() > 0


def test_no_guide_where_no_stage_asks_for_one(sources):
    assert build.make_guide(guided(sources, "none"), CPU) is None
    assert build.make_guide(guided(sources, "sds", "stages=[{name: a, images: 8}]"), CPU) is None


@pytest.mark.parametrize("kind", ["clip", "sds"])
@pytest.mark.lengthy
def test_guidance_through_the_script(sources, tmp_path, kind):
    changes = (f"guidance.kind={kind}", f"guidance.source={sources / 'DIFFUSION'}", "samples.prompts=[]")
    result = click.testing.CliRunner().invoke(train.main, arguments(sources, tmp_path, *changes))
    assert result.exception is None, result.output
    header, *lines = (tmp_path / "test/log.csv").read_text().splitlines()
    column = header.split(",").index("guidance")
    assert [bool(line.split(",")[column]) for line in lines] == [False] * 2 + [True] * 4
