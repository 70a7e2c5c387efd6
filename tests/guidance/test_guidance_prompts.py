"""Tests of a diffusion model's text features: from its own text encoder and from the miniature world's CLIP."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusion_folders import write_mini, write_own

from dreamportrait.guidance import prompts as prompts_module
from dreamportrait.guidance.distillation import d_sds_loss, draw
from dreamportrait.guidance.stable_diffusion import load_stable_diffusion
from dreamportrait.mini.clip_training import CONFIGS
from dreamportrait.miniworld.attributes import make_attributes
from dreamportrait.miniworld.captions import captions
from dreamportrait.text import compact_clip
from dreamportrait.text.encoder import TextEncoder

PROMPTS = ["a woman with red hair", "an old man with a hat"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_own(tmp_path_factory.mktemp("own"))


@pytest.mark.lengthy
def test_words_are_those_of_diffusers_pipeline(folder: Path) -> None:
    prior = load_stable_diffusion(str(folder))
    long = "a man " * 60
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    for prompts in (PROMPTS, [""], [long], ["ein Mädchen 👩‍🦰", "naïve  \n test!"]):
        expected = pipe.encode_prompt(prompts, "cpu", 1, do_classifier_free_guidance=False)[0]
        torch.testing.assert_close(prior.embed(prompts), expected)


@pytest.mark.lengthy
def test_its_tokens_are_those_of_the_conditioning(folder: Path) -> None:
    """For the words of captions, the tokens equal those of open_clip's tokenizer, which the conditioning uses."""
    texts = captions(make_attributes(), 0) + ["A woman's face, with long red hair; she wears glasses.", "", "naïve 😀"]
    embed: Any = load_stable_diffusion(str(folder)).embed
    assert torch.equal(embed.tokenise(texts), compact_clip.tokenizer()(texts, context_length=77))


@pytest.mark.lengthy
def test_long_prompts_are_cut_and_reported(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    prior = load_stable_diffusion(str(folder))
    with caplog.at_level(logging.WARNING, "dreamportrait"):
        cut = prior.embed(["red " * 80])
    assert "a prompt of 80 tokens is cut to its first 75" in caplog.text
    torch.testing.assert_close(cut, prior.embed(["red " * 75]))
    with pytest.raises(ValueError, match="prompts='red': give a list of at least one text"):
        prior.embed("red")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def text() -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(compact_clip.build(CONFIGS["a"]).eval().requires_grad_(False), compact_clip.tokenizer())


@pytest.mark.lengthy
def test_the_miniature_folder_reads_the_words_of_the_clip_it_names(
    text: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mini(tmp_path, width=96)
    prior = load_stable_diffusion(str(tmp_path), text=text)
    found = prior.embed(PROMPTS)
    assert torch.equal(found, text.encode(PROMPTS, shorten=False).words) and found.shape == (2, 77, 96)
    t, noise = draw(prior, 2, 0.02, 0.98)
    images = torch.zeros(2, 3, 64, 64).requires_grad_()
    null = prior.embed([""])
    d_sds_loss(prior, images, found, null, t, noise, scale=4, weighting="sigma_squared", rescale=1).backward()
    assert images.grad is not None and images.grad.abs().max() > 0

    asked: list[str] = []

    def load(name: str, **_: Any) -> TextEncoder:
        asked.append(name)
        return text

    monkeypatch.setattr(prompts_module, "load_text_encoder", load)
    load_stable_diffusion(str(tmp_path))
    assert asked == ["mini/clip-a"]


def test_a_folder_with_its_own_text_encoder_takes_no_other(folder: Path, text: TextEncoder) -> None:
    with pytest.raises(ValueError, match="has its own text encoder; leave out `text`"):
        load_stable_diffusion(str(folder), text=text)
