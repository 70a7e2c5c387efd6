"""Tests of the mini CLIPs: vocabulary, weights on disk, training steps, continued runs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from random_world import random_world
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamportrait.core.errors import WeightsError
from dreamportrait.mini import clip_training
from dreamportrait.mini.augmentation import augment
from dreamportrait.mini.clip_training import CONFIGS, ClipTraining, Compact, contrastive, token_ids, train
from dreamportrait.miniworld.captions import captions
from dreamportrait.text import compact_clip
from dreamportrait.text.clip_scorer import ClipScorer
from dreamportrait.text.encoder import TextEncoder

PROMPTS = ["a woman with red hair", "a bald man in a blue shirt, smiling", ""]


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {
        "a": replace(CONFIGS["a"], vision_width=8, text_width=16, text_layers=2, embed_dim=16),
        "b": replace(CONFIGS["b"], vision_width=32, vision_layers=1, text_width=16, embed_dim=16),
    }
    monkeypatch.setattr(clip_training, "CONFIGS", small)


def training(variant: str = "a", steps: int = 10, faces: int = 8) -> ClipTraining:
    return ClipTraining(variant, random_world(faces), steps, 8, torch.device("cpu"))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    run = training()
    compact_clip.save(run.model.state_dict(), token_ids(), run.config, tmp_path / "clip", {})
    return tmp_path / "clip"


def features(folder: Path) -> list[Tensor]:
    scorer = ClipScorer(compact_clip.load(folder), compact_clip.tokenizer())
    torch.manual_seed(0)
    return [scorer.text_features(PROMPTS), scorer.image_features(torch.rand(2, 3, 64, 64) * 2 - 1)]


def test_every_caption_is_made_of_known_tokens() -> None:
    world = random_world(200)
    known = set(token_ids())
    texts = [text for i in range(200) for text in [*world.captions(i), world.evaluation_caption(i)]]
    assert {token for text in texts for token in compact_clip.tokenizer().encode(text)} <= known
    assert token_ids()[-1] == compact_clip.tokenizer().eot_token_id
    assert len(known) < 250


def test_the_saved_model_is_the_trained_one(saved: Path) -> None:
    """The loaded model must equal the trained one, up to half precision of the weights.

    The trained model holds few rows of the token embedding, the loaded one holds all.
    """
    run = training()
    model = run.model.eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(parameter.half().float() if parameter.ndim > 1 else parameter)
    places, end = run.compact.places[compact_clip.tokenizer()(PROMPTS)], compact_clip.tokenizer()(PROMPTS).argmax(1)
    layers = run.tower.layers(places)
    expected = run.tower.project(layers[-1][torch.arange(3), end])
    loaded = ClipScorer(compact_clip.load(saved), compact_clip.tokenizer())
    torch.testing.assert_close(loaded.text_features(PROMPTS), expected)
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    seen = torch.nn.functional.normalize(model.encode_image(images), dim=1)
    torch.testing.assert_close(loaded.image_features(images), seen)


def test_saving_again_changes_nothing(saved: Path, tmp_path: Path) -> None:
    model = compact_clip.load(saved)
    state = model.state_dict()
    rows = state["token_embedding.weight"][list(token_ids())]
    config = clip_training.CONFIGS["a"]
    compact_clip.save(state | {"token_embedding.weight": rows}, token_ids(), config, tmp_path / "again", {})
    for first, second in zip(features(saved), features(tmp_path / "again"), strict=True):
        assert torch.equal(first, second)


def test_unknown_words_are_all_the_same_and_say_nothing(saved: Path) -> None:
    model = compact_clip.load(saved)
    tokenizer = compact_clip.tokenizer()
    assert tokenizer.encode("zebra")[0] not in token_ids()
    assert tokenizer.encode("tractor")[0] not in token_ids()
    encoded = TextEncoder(model, tokenizer).encode(["a zebra", "a tractor", "a woman"], shorten=True)
    assert torch.equal(encoded.words[0], encoded.words[1])
    assert not torch.allclose(encoded.eot[0], encoded.eot[2])
    assert not model.token_embedding.weight[tokenizer.encode("zebra")].any()


def test_words_are_made_unknown_but_never_the_ends() -> None:
    compact = Compact()
    texts = captions(random_world(1).attributes[0], 0, 200)
    places, end = compact.tokenise(texts, np.random.default_rng(0))
    inside = torch.arange(77) <= end[:, None]
    share = (places == compact.unknown)[inside].float().mean()
    assert 0.01 < share < 0.03
    last = len(token_ids()) - 1
    assert (places[torch.arange(200), end] == last).all()
    assert (places[:, 0] == last - 1).all()  # start of text


@pytest.mark.lengthy
def test_the_unknown_row_stays_zero() -> None:
    run = training()
    before = run.model.token_embedding.weight.clone()
    for index in range(3):
        run.step(index)
    assert not run.model.token_embedding.weight[run.compact.unknown].any()
    assert not torch.equal(before, run.model.token_embedding.weight)


@pytest.mark.parametrize("variant", ["a", "b"])
@pytest.mark.lengthy
def test_training_learns_a_few_faces(variant: str, single_precision: None) -> None:
    """Train on eight pictures, with new captions in every step. The loss of guessing is ln 8 = 2.08."""
    run = training(variant, steps=1000)
    losses = []
    for index in range(90):
        torch.manual_seed(index)
        losses.append({name: float(value.detach()) for name, value in run.step(index).items()})
    for name in ("loss", "early"):
        assert sum(row[name] for row in losses[:10]) > 20
        assert sum(row[name] for row in losses[-10:]) < 17


@pytest.mark.lengthy
def test_a_stopped_run_continues_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = random_world(100)
    whole, part = tmp_path / "whole", tmp_path / "part"
    train("a", whole, tmp_path / "work", world, world, steps=4, batch=8)

    class Stopped(Exception):
        pass

    step = ClipTraining.step

    def stopping(self: ClipTraining, index: int) -> dict[str, Tensor]:
        if index == 2:
            raise Stopped
        return step(self, index)

    whole_fit = clip_training.fit
    monkeypatch.setattr(clip_training, "fit", lambda *a, **k: whole_fit(*a, **k, save_every=2))
    monkeypatch.setattr(ClipTraining, "step", stopping)
    with pytest.raises(Stopped):
        train("a", part, tmp_path / "work2", world, world, steps=4, batch=8)
    monkeypatch.setattr(ClipTraining, "step", step)
    train("a", part, tmp_path / "work2", world, world, steps=4, batch=8)
    first, second = (load_file(folder / "model.safetensors") for folder in (whole, part))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (whole / "config.json").read_text() == (part / "config.json").read_text()
    scores = json.loads((whole / "config.json").read_text())["scores"]
    assert scores["faces"] == scores["candidates"] == 100
    with pytest.raises(FileExistsError, match="name another one"):
        train("a", whole, tmp_path / "work", world, world, steps=4, batch=8)


def test_contrastive_loss_by_hand() -> None:
    seen, read = torch.eye(2), torch.eye(2)
    # logits are 2 on the diagonal and 0 elsewhere: -ln(e^2 / (e^2 + 1))
    loss = contrastive(seen, read, torch.tensor(2.0))
    torch.testing.assert_close(loss, torch.tensor(2.0).neg().exp().log1p())


def test_augmented_pictures_stay_pictures() -> None:
    torch.manual_seed(0)
    images = torch.rand(16, 3, 64, 64) * 2 - 1
    changed = augment(images)
    assert changed.shape == images.shape
    assert changed.min() >= -1 and changed.max() <= 1
    assert not torch.equal(changed, images)
    gray = torch.zeros(16, 3, 64, 64)
    plain = augment(gray, noise=0, colour=0)  # moving, flipping and blurring do not change one colour
    torch.testing.assert_close(plain, gray, rtol=0, atol=1e-6)


def test_images_of_any_size(saved: Path) -> None:
    scorer = ClipScorer(compact_clip.load(saved), compact_clip.tokenizer())
    small = torch.nn.functional.interpolate(torch.rand(2, 3, 8, 8) * 2 - 1, (64, 64), mode="bicubic").clamp(-1, 1)
    large = torch.nn.functional.interpolate(small, (128, 128), mode="bicubic").clamp(-1, 1)
    a, b = scorer.image_features(small), scorer.image_features(large)
    assert (a * b).sum(1).min() > 0.99
    torch.testing.assert_close(a.norm(dim=1), torch.ones(2))
    for bad in (torch.zeros(3, 64, 64), torch.zeros(1, 3, 64, 32), torch.zeros(0, 3, 64, 64)):
        with pytest.raises(ValueError, match=r"must be \[N, 3, R, R\]"):
            scorer.image_features(bad)
    assert scorer.similarity(small, PROMPTS[:2]).shape == (2,)
    with pytest.raises(ValueError, match="one prompt for each image"):
        scorer.similarity(small, PROMPTS)


def test_scores_need_a_model_in_eval_mode(saved: Path) -> None:
    with pytest.raises(ValueError, match="switch it to evaluation"):
        ClipScorer(compact_clip.load(saved).train(), compact_clip.tokenizer())


def test_gradients_reach_the_pictures(saved: Path) -> None:
    scorer = ClipScorer(compact_clip.load(saved), compact_clip.tokenizer())
    images = (torch.rand(2, 3, 64, 64) * 2 - 1).requires_grad_()
    scorer.similarity(images, PROMPTS[:2]).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_damaged_folders_are_named(saved: Path) -> None:
    path = saved / "model.safetensors"
    tensors = {name: x.clone() for name, x in load_file(path).items()}  # not mapped: the file is replaced
    save_file({name: x for name, x in tensors.items() if name != "token_embedding.ids"}, path)
    with pytest.raises(WeightsError, match=r"lacks token_embedding\.ids"):
        compact_clip.load(saved)
    save_file(tensors | {"token_embedding.ids": tensors["token_embedding.ids"] + 1}, path)
    with pytest.raises(WeightsError, match="do not fit an embedding"):
        compact_clip.load(saved)
    save_file(tensors | {"ln_final.weight": tensors["ln_final.weight"] * torch.nan}, path)
    with pytest.raises(WeightsError, match=r"NaN or infinite values in ln_final\.weight"):
        compact_clip.load(saved)
    path.write_bytes(b"no tensors")
    with pytest.raises(WeightsError, match="is damaged"):
        compact_clip.load(saved)
    path.unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors is not there"):
        compact_clip.load(saved)
    config = saved / "config.json"
    config.write_text('{"format_version": 1, "model": {"vision": "resnet"}}')
    save_file(tensors, path)
    with pytest.raises(WeightsError, match="model lacks"):
        compact_clip.load(saved)
    config.write_text('{"format_version": 9}')
    with pytest.raises(WeightsError, match="format_version 9"):
        compact_clip.load(saved)


def test_unknown_variant(tmp_path: Path) -> None:
    world = random_world(8)
    with pytest.raises(ValueError, match="variant='c': must be one of a, b"):
        train("c", tmp_path / "out", tmp_path / "work", world, world)
