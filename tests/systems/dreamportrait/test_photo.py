"""Tests of portraits from photos."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dreamportrait import DreamPortraitPipeline
from dreamportrait.geometry.photos import read_photo
from dreamportrait.prior.inversion import Inverter, PictureFeatures
from dreamportrait.systems.dreamportrait.folder import INVERTER, load_portrait
from dreamportrait.systems.dreamportrait.photo import Inversion
from dreamportrait.text.loading import load_clip


@pytest.fixture(scope="module")
def pipe() -> DreamPortraitPipeline:
    pipe = DreamPortraitPipeline.from_pretrained("mini")
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def photo(pipe: DreamPortraitPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a picture of a face of the model itself, from the left."""
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    pipe("a woman with red hair", seed=5).view(yaw=-16).pictures[0].save(path)
    return path


@pytest.fixture(scope="module")
def found(pipe: DreamPortraitPipeline, photo: Path) -> Inversion:
    return pipe.invert(photo, steps=12, tuning_steps=8, num_views=2)


@pytest.mark.lengthy
def test_each_step_draws_the_photo_better(found: Inversion) -> None:
    guess, search, tuning = (found.errors[name] for name in ("guess", "search", "tuning"))
    assert guess < search < tuning
    # The steps are few here: the bound only shows that the search works at all. A hundred steps pass 25 dB.
    assert tuning > guess + 2


@pytest.mark.lengthy
def test_the_portrait_is_one_of_the_models_own(pipe: DreamPortraitPipeline, found: Inversion, tmp_path: Path) -> None:
    assert found.portrait.head.generator is pipe.generator.generator and found.portrait.claim == pipe.claim
    found.portrait.save(tmp_path / "head.safetensors")
    loaded = pipe.load_portrait(tmp_path / "head.safetensors")
    assert np.array_equal(loaded.images, found.portrait.images)


@pytest.mark.lengthy
def test_a_text_changes_the_portrait(found: Inversion) -> None:
    kept, changed = found.edit("a man with a blue hat", strength=0.0), found.edit("a man with a blue hat")
    torch.testing.assert_close(kept.planes, found.portrait.planes)
    assert (changed.colors - found.portrait.colors).abs().mean() > 0.05


@pytest.mark.lengthy
def test_the_pipeline_itself_stays_as_it_is(pipe: DreamPortraitPipeline, found: Inversion) -> None:
    assert not any(weight.requires_grad for weight in pipe.generator.parameters())
    own, tuned = (g.generator.backbone.synthesis.state_dict() for g in (pipe.generator, found.tuned))
    assert any(not torch.equal(own[name], tuned[name]) for name in own)


def test_photos_that_are_none_are_refused(pipe: DreamPortraitPipeline, photo: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not there"):
        pipe.invert(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match="no picture that can be read"):
        pipe.invert(tmp_path / "text.png")
    with pytest.raises(ValueError, match="64 x 32 pixels: it must be square"):
        read_photo(Image.new("RGB", (64, 32)), 64)
    with pytest.raises(ValueError, match="2 cameras for one photo"):
        pipe.invert(photo, cameras=pipe.generator.config.around([0.0, 1.0]))
    with pytest.raises(ValueError, match="steps must be at least 0"):
        pipe.invert(photo, steps=-1)


def test_larger_photos_are_reduced() -> None:
    assert read_photo(Image.new("RGBA", (128, 128), "red"), 64).shape == (1, 3, 64, 64)


def test_a_model_keeps_its_inverter(pipe: DreamPortraitPipeline, tmp_path: Path) -> None:
    torch.manual_seed(0)
    clip = load_clip("mini/clip-a")
    inverter = Inverter(PictureFeatures(clip.model).maps(), 128).eval()
    about = {"licence": pipe.licence, "pretrained": pipe.pretrained}
    made = DreamPortraitPipeline(pipe.generator, pipe.encoder, pipe.text, **about, inverter=inverter)
    made.save_pretrained(tmp_path / "model")
    loaded = DreamPortraitPipeline.from_pretrained(tmp_path / "model").inverter
    features = torch.randn(2, inverter.standard.mean.shape[0])
    assert loaded is not None and torch.equal(loaded(features), inverter(features))
    assert (tmp_path / "model" / INVERTER).exists() and load_portrait(tmp_path / "model").inverter is not None
