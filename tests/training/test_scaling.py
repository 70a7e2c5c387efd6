"""Tests of float16: steps with gradients that are not finite are left out, counted and logged, up to a limit."""

import csv
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from same_states import assert_same
from tiny_training import config, fit, module

from dreamportrait.core.errors import NonFiniteLoss
from dreamportrait.systems.dreamportrait.callbacks import make_callbacks
from dreamportrait.training.scaling import GROWTH_INTERVAL, LEAST, LossScale

HALF = {"precision": "float16", "log_every_images": 4, "save_every_images": 8, "sample_every_images": 0}


def test_the_scale_follows_overflows() -> None:
    scale = LossScale(dynamic=True)
    for _ in range(3):
        scale.adapt(finite=False)
    assert (scale.value, scale.skipped, scale.in_a_row) == (1 / 8, 3, 3)
    for _ in range(GROWTH_INTERVAL):
        scale.adapt(finite=True)
    assert (scale.value, scale.skipped, scale.in_a_row) == (1 / 4, 3, 0)
    gradient = torch.tensor([1.0, -3.0])
    scale.unscale([gradient])
    assert gradient.tolist() == [4, -12]
    for _ in range(100):
        scale.adapt(finite=False)
    assert scale.value == LEAST
    again = LossScale(dynamic=True)
    again.load_state_dict(scale.state_dict())
    assert again.state_dict() == scale.state_dict()


def test_without_float16_nothing_is_scaled() -> None:
    scale = LossScale(dynamic=False)
    scale.adapt(finite=False)
    scale.load_state_dict(LossScale(dynamic=True).state_dict() | {"value": 0.5})
    assert (scale.value, scale.skipped) == (1, 0)


class Overflow(Callback):
    """Makes the gradient of a weight infinite in the steps that begin after these numbers of images."""

    def __init__(self, weight: str, images: tuple[int, ...]) -> None:
        self.weight, self.images = weight, images

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        weight = dict(pl_module.named_parameters())[self.weight]
        weight.register_hook(lambda g: g * math.inf if pl_module.images in self.images else g)


class Weights(Callback):
    """Keeps the weights after each step."""

    def __init__(self) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.seen.append({name: p.detach().clone() for name, p in pl_module.named_parameters()})


def rows(c: Any) -> list[dict[str, str]]:
    with open(c.folder / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.lengthy
def test_an_overflow_skips_one_update(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    c, watch = config(tmp_path, trainer=HALF), Weights()
    made = module(c)
    with caplog.at_level(logging.WARNING):
        fit(made, *make_callbacks(c, None), Overflow("generator.mapper.fuse.bias", (8,)), watch)
    assert made.images == 16
    before, after = watch.seen[1], watch.seen[2]
    still = {name for name in before if name.startswith("generator.") and torch.equal(before[name], after[name])}
    assert still == {name for name in before if name.startswith("generator.")}
    assert not torch.equal(before["critic.discriminator.b4.out.bias"], after["critic.discriminator.b4.out.bias"])
    assert {name: scale.value for name, scale in made.scales.items()} == {
        "generator": 0.5,
        "discriminator": 1,
        "fake_score": 1,
        "pair_critic": 1,
    }
    found = rows(c)
    assert [row["skipped_updates"] for row in found] == ["0", "0", "1", "1"]
    assert [row["loss_scale"] for row in found] == ["1", "1", "0.5", "0.5"]
    assert found[2]["generator"] == "" and float(found[2]["discriminator"]) > 0  # means are over updates that were made
    [message] = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert (
        "the weights of mapper is inf" in message and "the 1. of this run; the scale of its loss is now 0.5" in message
    )


@pytest.mark.lengthy
def test_a_smaller_scale_gives_the_same_updates(tmp_path: Path) -> None:
    """Powers of two change no digit, so the scale is invisible where nothing overflows."""
    plain, scaled = module(config(tmp_path)), module(config(tmp_path, trainer=HALF))
    for scale in scaled.scales.values():
        scale.value = 2.0**-3
    fit(plain), fit(scaled)
    assert_same(plain.state_dict(), scaled.state_dict())


@pytest.mark.lengthy
def test_too_many_in_a_row_stop_the_run(tmp_path: Path) -> None:
    c = config(tmp_path, trainer=HALF | {"skip_limit": 2})
    made = module(c)
    with pytest.raises(NonFiniteLoss, match=r"step 3 .*the weights of discriminator is .*The last 3 updates were not"):
        fit(made, *make_callbacks(c, None), Overflow("critic.discriminator.b4.out.bias", (0, 4, 8)))
    assert all(p.isfinite().all() for p in made.parameters()) and list(c.folder.glob("nonfinite-*.pt"))
    apart = module(c)
    fit(apart, *make_callbacks(c, None), Overflow("critic.discriminator.b4.out.bias", (0, 4, 12)))
    assert apart.scales["discriminator"].skipped == 3 and apart.images == 16


@pytest.mark.lengthy
def test_a_continued_run_keeps_its_scale(tmp_path: Path) -> None:
    c = config(tmp_path, trainer=HALF)
    fit(module(c), *make_callbacks(c, None), Overflow("generator.mapper.fuse.bias", (4,)))
    again = module(c)
    fit(again, *make_callbacks(c, None), ckpt_path=c.folder / "checkpoints" / "images-000000008.ckpt")
    assert (again.scales["generator"].value, again.scales["generator"].skipped) == (0.5, 1)
