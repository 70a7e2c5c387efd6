"""Tests of the further training of CLIP A with false captions."""

import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from random_world import random_world

from dreamportrait.mini import clip_hard, clip_rare, clip_said, clip_training, probe
from dreamportrait.mini.clip_hard import HardTraining, hard_contrastive
from dreamportrait.mini.clip_training import CONFIGS, ClipTraining, token_ids
from dreamportrait.mini.oracle import HIDDEN
from dreamportrait.miniworld.attributes import ATTRIBUTES, make_attributes
from dreamportrait.miniworld.captions import Told
from dreamportrait.text import compact_clip


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"a": replace(CONFIGS["a"], vision_width=8, text_width=16, text_layers=2, embed_dim=16)}
    for module in (clip_training, clip_said):
        monkeypatch.setattr(module, "CONFIGS", small)


def test_the_loss_by_hand() -> None:
    """Two pictures, orthogonal; the false caption of the first equals its true one, that of the second is opposite."""
    seen = torch.eye(2)
    false = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    loss, apart = hard_contrastive(seen, torch.eye(2), false, torch.tensor([True, True]), torch.tensor(1.0))
    e = math.e
    pictures = (-math.log(e / (e + 1 + e)) - math.log(e / (1 + e + 1 / e))) / 2
    texts = -math.log(e / (e + 1))
    pairs = (math.log(2) + math.log(1 + math.exp(-2))) / 2
    assert float(loss) == pytest.approx((pictures + texts) / 2 + pairs, abs=1e-5)  # float32
    assert float(apart) == 0.5


def test_captions_that_could_not_be_changed_do_not_count() -> None:
    seen, false = torch.eye(2), torch.randn(2, 2)
    nothing = torch.tensor([False, False])
    loss, apart = hard_contrastive(seen, seen, false, nothing, torch.tensor(1.0))
    assert float(loss) == pytest.approx(-math.log(math.e / (math.e + 1)), abs=1e-5)
    assert float(apart) == 0


def test_it_starts_from_the_other_training_and_learns(tmp_path: Path) -> None:
    torch.manual_seed(0)
    before = ClipTraining("a", random_world(16), 4, 8, torch.device("cpu"))
    compact_clip.save(before.model.state_dict(), token_ids(), before.config, tmp_path / "clip", {})
    run = HardTraining(tmp_path / "clip", random_world(16), 4, 8, torch.device("cpu"))
    for name, value in before.model.state_dict().items():
        # Weights are stored in half precision. The last embedding row, of unknown words, is zero in both.
        torch.testing.assert_close(run.model.state_dict()[name], value, atol=1e-3, rtol=1e-3)
    losses = run.step(0)
    assert all(math.isfinite(float(value.detach())) for value in losses.values())
    assert not run.model.token_embedding.weight[run.compact.unknown].any()


def save_clip(folder: Path) -> None:
    """Write a CLIP with random weights."""
    before = ClipTraining("a", random_world(8), 4, 4, torch.device("cpu"))
    compact_clip.save(before.model.state_dict(), token_ids(), before.config, folder, {})


def test_a_whole_run_writes_a_clip(tmp_path: Path) -> None:
    save_clip(tmp_path / "clip")
    worlds = random_world(8), random_world(4)
    clip_hard.train(tmp_path / "clip", tmp_path / "out", tmp_path / "work", *worlds, steps=2, batch=4)
    assert compact_clip.load(tmp_path / "out").token_embedding.weight.any()


def test_what_is_said_by_hand() -> None:
    """Two captions of a woman: one says that she is a woman without glasses, the other that she smiles."""
    face = make_attributes(gender="woman", expression="smile")
    captions = [Told(face, frozenset({"gender"}), ("eyewear",), 0), Told(face, frozenset({"expression"}), (), 0)]
    logits = torch.zeros(2, sum(clip_said._SIZES))
    # Equal logits: for every attribute the logarithm of its number of classes.
    assert float(clip_said.said_loss(logits, captions)) == pytest.approx(sum(map(math.log, clip_said._SIZES)), abs=1e-4)
    right = torch.zeros_like(logits)
    start = 0
    for name, size in zip(ATTRIBUTES, clip_said._SIZES, strict=True):
        for row, caption in enumerate(captions):
            mentioned = name in caption.stated or name in caption.absent
            right[row, start + (1 + ATTRIBUTES[name].index(face[name]) if mentioned else 0)] = 50
        start += size
    assert float(clip_said.said_loss(right, captions)) < 1e-6


@pytest.mark.parametrize("module", [clip_said, clip_rare])
def test_the_text_tower_alone_is_trained(module: ModuleType, tmp_path: Path) -> None:
    save_clip(tmp_path / "clip")
    worlds = random_world(8), random_world(4)
    module.train(tmp_path / "clip", tmp_path / "out", tmp_path / "work", *worlds, steps=2, batch=4)
    old, new = (compact_clip.load(tmp_path / name).state_dict() for name in ("clip", "out"))
    assert all(torch.equal(old[name], new[name]) for name in old if name.startswith("visual."))
    assert not torch.equal(old["text_projection"], new["text_projection"])
    assert not torch.equal(old["positional_embedding"], new["positional_embedding"])


def test_rare_things_are_named_often_and_contradicted() -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    face = make_attributes(gender="woman", expression="smile", eye_color="blue")
    smiling = Told(face, frozenset({"expression"}), (), 0)
    named = clip_rare.naming(smiling)
    assert named.stated == {"expression", "eye_color"}
    assert "blue" in named.text()
    hidden = Told(make_attributes(gender="woman", eyewear="sunglasses"), frozenset({"gender"}), (), 0)
    assert clip_rare.naming(hidden) == hidden  # nobody sees these eyes
    false = [clip_rare.contradicted(named, rng) for _ in range(40)]
    assert sum(each.face["eye_color"] != "blue" for each in false) >= 20
    assert named not in false


def test_features_of_texts_that_name_nothing_rare_are_held(tmp_path: Path) -> None:
    """At the start nothing has moved. A moved tower is charged for usual texts, and for those alone."""
    save_clip(tmp_path / "clip")
    training = clip_rare.RareTraining(tmp_path / "clip", random_world(8), 2, 4)
    rng = np.random.Generator(np.random.PCG64(0))
    face = make_attributes(gender="woman", eye_color="green")
    usual, rare = Told(face, frozenset({"gender"}), (), 0), Told(face, frozenset({"gender", "eye_color"}), (), 0)
    denying = Told(face, frozenset({"gender"}), ("hat",), 0)

    def held(*captions: Told) -> float:
        read = training._read([caption.text() for caption in captions], rng)
        return training._more_losses(read, list(captions))["held"].item()

    assert held(usual, rare, denying) < 1e-9  # both towers round differently
    with torch.no_grad():
        training.model.positional_embedding.mul_(1.5)
    assert held(usual) > 1e-4
    assert held(rare, denying) == 0
    assert held(usual, rare) == pytest.approx(held(usual), rel=1e-4)


def test_the_probe_finds_what_is_there_and_nothing_else() -> None:
    torch.manual_seed(0)
    classes = torch.randint(0, 3, (3000,))
    told = torch.nn.functional.one_hot(classes).float() @ torch.randn(3, 8) + 0.1 * torch.randn(3000, 8)
    assert probe.explained(told, classes) > 0.9
    assert abs(probe.explained(torch.randn(3000, 8), classes)) < 0.05
    hidden = torch.where(torch.arange(3000) % 2 == 0, classes, HIDDEN)
    assert probe.explained(told, hidden) > 0.9
