"""Tests of the attribute oracle: its answers, its accuracy, a short training, weights on disk."""

import json
from pathlib import Path

import pytest
import torch
from random_world import random_world
from safetensors.torch import load_file

from dreamportrait.core.errors import WeightsError
from dreamportrait.metrics.world_oracle import AttributeReader, load
from dreamportrait.mini.oracle import HIDDEN, accuracy, oracle_training, to_classes, train
from dreamportrait.miniworld.attributes import ATTRIBUTES, make_attributes

PICTURES = torch.linspace(-1, 1, 3 * 3 * 64 * 64).view(3, 3, 64, 64)


def fixed(chosen: dict[str, str]) -> AttributeReader:
    """Return an oracle that gives the same answer for every picture."""
    oracle = AttributeReader().eval().requires_grad_(False)
    oracle.heads.weight.zero_()
    oracle.heads.bias.zero_()
    start = 0
    for name, values in ATTRIBUTES.items():
        oracle.heads.bias[start + values.index(chosen[name])] = 1.0
        start += len(values)
    return oracle


def test_it_is_small() -> None:
    assert sum(parameter.numel() for parameter in AttributeReader().parameters()) <= 250_000


def test_reads_names_and_values() -> None:
    face = make_attributes(gender="man", hair_color="red", hat="cap", hat_color="purple", background="pink")
    assert fixed(face).read(PICTURES) == [face] * 3


def test_other_sizes_are_read_alike() -> None:
    torch.manual_seed(0)
    oracle = AttributeReader().eval()
    large = torch.nn.functional.interpolate(PICTURES, (128, 128), mode="bicubic")
    with torch.no_grad():
        logits = torch.cat(oracle(PICTURES), 1)
    expected = torch.stack([part.argmax(1) for part in logits.split([len(v) for v in ATTRIBUTES.values()], 1)], 1)
    assert torch.equal(oracle.classes(PICTURES), expected)
    assert torch.equal(oracle.classes(large), expected)
    with pytest.raises(ValueError, match=r"must be \[N, 3, R, R\]"):
        oracle.read(PICTURES[0])


def test_what_cannot_be_seen_is_not_scored() -> None:
    shown = make_attributes(gender="man", hat="cap", hat_color="red", eyewear="sunglasses")
    bare = make_attributes(gender="man", hat_color="green", clothes="black")
    other = make_attributes(gender="woman", hat="cap", hat_color="green", eyewear="sunglasses")
    scores = accuracy(fixed(shown), PICTURES, [shown, bare, other])
    # The first and the third wear hats; only the second shows its eyes.
    assert scores["hat_color"] == pytest.approx(1 / 2)
    assert scores["eye_color"] == 1.0
    assert scores["gender"] == pytest.approx(2 / 3)
    assert scores["hat"] == pytest.approx(2 / 3)
    assert scores["clothes"] == pytest.approx(2 / 3)
    assert "eye_color" not in accuracy(fixed(shown), PICTURES[:1], [shown])
    with pytest.raises(ValueError, match="3 images and attributes of 1 faces"):
        accuracy(fixed(shown), PICTURES, [shown])


def test_classes() -> None:
    face = make_attributes(gender="man", hair_style="bald", eyewear="glasses", background="black")
    row = dict(zip(ATTRIBUTES, to_classes([face])[0].tolist(), strict=True))
    assert (row["gender"], row["hair_style"], row["eyewear"], row["background"]) == (1, 4, 1, 6)
    assert row["hair_color"] == row["hat_color"] == HIDDEN


@pytest.mark.lengthy
def test_training_learns_a_few_faces(single_precision: None) -> None:
    run = oracle_training(random_world(4), steps=50, batch=16, device=torch.device("cpu"))
    losses = []
    for index in range(50):
        torch.manual_seed(index)
        losses.append(float(run.step(index)["loss"].detach()))
    assert losses[0] > 15  # the loss of guessing is 19, the sum of ln(number of values)
    assert sum(losses[-3:]) / 3 < losses[0] / 2


@pytest.mark.lengthy
def test_trained_weights_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = random_world(16)
    train(tmp_path / "out", tmp_path / "work", world, world, steps=2, batch=4)
    train(tmp_path / "again", tmp_path / "work", world, world, steps=2, batch=4)  # continues from the last state
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    loaded = load(tmp_path / "out")
    assert not loaded.training
    assert len(loaded.read(PICTURES)) == 3
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert set(config["accuracy"]) == set(ATTRIBUTES)
    with pytest.raises(FileExistsError, match="name another one"):
        train(tmp_path / "out", tmp_path / "work", world, world, steps=2)
    config["attributes"]["hat"] = ["none", "helmet"]
    (tmp_path / "out" / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="trained on other attributes"):
        load(tmp_path / "out")
