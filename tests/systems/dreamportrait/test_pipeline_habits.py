"""Tests of the pipeline's further arguments: strength, several images of a prompt, text features, notes on prompts."""

import io
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_pipeline import write_portrait
from tiny_portraits import TEXT, equip, latents

from dreamportrait.export.portraits import Portraits
from dreamportrait.systems.dreamportrait.generator import MAX_STRENGTH
from dreamportrait.systems.dreamportrait.pipeline import EMBEDDED, DreamPortraitPipeline
from dreamportrait.text.encoder import TextEncoder
from dreamportrait.text.loading import load_text_encoder

PROMPTS = ["a woman with red hair", "an old man wearing a blue hat and glasses"]
# Batches of different sizes are summed in different orders.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> DreamPortraitPipeline:
    return DreamPortraitPipeline.from_pretrained(write_portrait(tmp_path_factory.mktemp("models") / "portrait"))


@pytest.fixture(scope="module")
def small() -> TextEncoder:
    """Return a text encoder that knows few words."""
    return load_text_encoder("mini/clip-a")


# Strength.


def test_strength_goes_from_the_seeds_own_face_to_the_text(pipe: DreamPortraitPipeline) -> None:
    none, half, full = (pipe(PROMPTS[0], 3, strength=strength) for strength in (0.0, 0.5, 1.0))
    z = torch.randn(1, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        own = pipe.generator.portray(z, None)
    assert torch.equal(none.planes, own.planes[0]) and torch.equal(none.ws, own.ws[0])
    assert torch.equal(full.planes, pipe(PROMPTS[0], 3).planes)
    torch.testing.assert_close(half.ws, (none.ws + full.ws) / 2)
    assert (half.planes - none.planes).abs().mean() > 0.01 and (half.planes - full.planes).abs().mean() > 0.01
    more = pipe(PROMPTS[0], 3, strength=MAX_STRENGTH)
    torch.testing.assert_close(more.ws - none.ws, MAX_STRENGTH * (full.ws - none.ws), **CLOSE)


def test_strength_scales_what_an_adapter_adds() -> None:
    generator = equip({"global_path": False})
    x = torch.randn(2, generator.adapters["4"].read.weight.shape[1], 4, 4)
    changes = {}
    for strength in (0.5, 1.0, 1.5):
        between = generator._between(TEXT, 2, strength)
        assert between is not None
        changes[strength] = between(4, x) - x
    assert changes[1.0].abs().mean() > 0.01
    for strength, change in changes.items():
        torch.testing.assert_close(change, strength * changes[1.0], **CLOSE)
    assert generator._between(TEXT, 2, 0.0) is None


@pytest.mark.parametrize("settings", [{"plain_mapper": True}, {"global_path": False}, {"local_path": False}])
def test_strength_zero_ignores_the_text_of_every_kind(settings: dict) -> None:
    generator = equip(settings)
    z, _ = latents()
    with torch.no_grad():
        assert torch.equal(generator.portray(z, TEXT, strength=0.0).planes, generator.portray(z, None).planes)
        assert not torch.equal(generator.portray(z, TEXT).planes, generator.portray(z, None).planes)


# Several images of a prompt, and text features.


def test_several_images_of_a_prompt(pipe: DreamPortraitPipeline) -> None:
    several = pipe(PROMPTS[0], 4, num_images_per_prompt=3)
    assert isinstance(several, Portraits) and [each.seed for each in several] == [4, 5, 6]
    torch.testing.assert_close(several[2].colors, pipe(PROMPTS[0], 6).colors, **CLOSE)
    two = pipe(PROMPTS, num_images_per_prompt=2)
    assert [(each.prompt, each.seed) for each in two] == [(p, s) for p in PROMPTS for s in (0, 1)]
    assert [each.seed for each in pipe(PROMPTS, [3, 8], num_images_per_prompt=2)] == [3, 4, 8, 9]
    assert [each.seed for each in pipe(PROMPTS, [1, 2, 3, 4], num_images_per_prompt=2)] == [1, 2, 3, 4]
    assert len(pipe(PROMPTS[0], num_images_per_prompt=1)) == 1
    drawn = pipe(PROMPTS[0], generator=torch.Generator().manual_seed(4), num_images_per_prompt=2)
    assert [each.seed for each in drawn] == [None, None]
    assert (drawn[0].planes - drawn[1].planes).abs().mean() > 0.01
    with pytest.raises(ValueError, match="num_images_per_prompt must be at least 1, got 0"):
        pipe(PROMPTS[0], num_images_per_prompt=0)


def test_text_features_replace_the_prompt(pipe: DreamPortraitPipeline) -> None:
    text = pipe.encode_prompt(PROMPTS)
    made, expected = pipe(prompt_embeds=text, seed=[3, 4]), pipe(PROMPTS, [3, 4])
    for one, other in zip(made, expected, strict=True):
        assert torch.equal(one.planes, other.planes) and one.prompt == EMBEDDED
    several = pipe(prompt_embeds=pipe.encode_prompt(PROMPTS[0]), num_images_per_prompt=3, batch_size=2)
    for one, other in zip(several, pipe(PROMPTS[0], num_images_per_prompt=3), strict=True):
        torch.testing.assert_close(one.planes, other.planes, **CLOSE)
    for both_or_none in ({}, {"prompt": "a", "prompt_embeds": text}):
        with pytest.raises(ValueError, match="give either prompt or prompt_embeds"):
            pipe(**both_or_none)  # type: ignore[arg-type]


# Notes on prompts.


def test_unknown_words_are_named(small: TextEncoder) -> None:
    assert small.unknown_words("Taylor Swift smiling") == ["Taylor", "Swift"]
    assert small.unknown_words("a woman with long, red hair & glasses!") == []
    assert small.unknown_words("") == small.unknown_words("... !") == []
    german = "eine alte Frau mit roten Haaren"
    assert small.unknown_words(german) == german.split()
    assert small.unknown_words("\N{GRINNING FACE} hair") == ["\N{GRINNING FACE}"]


def test_an_encoder_with_all_words(pipe: DreamPortraitPipeline) -> None:
    assert pipe.encoder.unknown_words("Taylor Swift smiling") == []


def test_each_note_is_logged_once(
    pipe: DreamPortraitPipeline, small: TextEncoder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipe.encoder, "unknown_words", small.unknown_words)
    prompts = ["Taylor Swift smiling", "eine Frau", " ", "red " * 80, "a man", "Taylor Swift smiling"]
    with caplog.at_level(logging.WARNING):
        pipe(prompts)
    said = [record.message for record in caplog.records]
    assert [len([text for text in said if part in text]) for part in ("'Taylor'", "none of", "an empty prompt")] == [
        1
    ] * 3
    assert (
        "does not know the words 'Taylor', 'Swift'" in caplog.text and "80 tokens is cut to its first 75" in caplog.text
    )
    assert len(said) == 4
    assert [len(pipe.prompt_notes(prompt)) for prompt in prompts] == [1, 1, 1, 1, 0, 1]


def test_prompts_of_any_length(pipe: DreamPortraitPipeline) -> None:
    with pytest.raises(ValueError, match=r"a prompt of 10000 characters, 'xxx.*at most 2000.*shorten it"):
        pipe("x" * 10_000)
    assert pipe("red " * 500).images.shape == (1, 16, 16, 3)


@pytest.mark.parametrize("strength", [-0.1, 1.6, float("nan")])
def test_wrong_strengths(pipe: DreamPortraitPipeline, strength: float) -> None:
    with pytest.raises(ValueError, match="strength"):
        pipe("a", strength=strength)


# Portraits in notebooks and in files.


def test_notebooks_show_the_sheet(pipe: DreamPortraitPipeline) -> None:
    for made in (pipe(PROMPTS[0], num_views=2), pipe(PROMPTS)):
        with Image.open(io.BytesIO(made._repr_png_())) as picture:
            assert picture.format == "PNG" and np.array_equal(np.asarray(picture), np.asarray(made.sheet()))


def test_a_portrait_comes_back_from_its_file(pipe: DreamPortraitPipeline, tmp_path: Path) -> None:
    portrait = pipe(PROMPTS[0], seed=2**63 - 1, num_views=3)
    portrait.save(tmp_path / "head.safetensors")
    again = pipe.load_portrait(tmp_path / "head.safetensors")
    assert (again.prompt, again.seed) == (PROMPTS[0], 2**63 - 1)
    assert torch.equal(again.colors, portrait.colors) and torch.equal(again.planes, portrait.planes)
    assert torch.equal(again.view(20, 5).colors, portrait.view(20, 5).colors)
