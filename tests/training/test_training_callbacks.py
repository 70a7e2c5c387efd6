"""Tests of the callbacks of a run: checkpoints with exact continuation, guard, log, sheets, collapse monitor."""

import csv
import logging
import math
from pathlib import Path

import numpy
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from same_states import assert_same
from tiny_training import PROMPTS, SIZE, batch, config, encode, fit, module
from torch import Tensor

from dreamportrait.core.errors import NonFiniteLoss
from dreamportrait.systems.dreamportrait.callbacks import CollapseMonitor, SampleSheets, make_callbacks, portraits
from dreamportrait.training.checkpoints import Checkpoints, newest_checkpoint
from dreamportrait.training.every import Every
from dreamportrait.training.guard import NonFiniteGuard
from dreamportrait.training.log import Log
from dreamportrait.training.states import load_state

TIMES = ("images_per_second",)


class Stop(Callback):
    """A callback that ends a run as if it had been killed."""

    def __init__(self, images: int) -> None:
        self.images = images

    def on_train_batch_start(self, trainer, pl_module, *rest):
        if pl_module.images == self.images:
            raise KeyboardInterrupt


def run(c, *more: Callback, ckpt_path: Path | None = None):
    made = module(c)
    fit(made, *make_callbacks(c, encode(list(c.samples.prompts))), *more, ckpt_path=ckpt_path)
    return made


def rows(c):
    with open(c.folder / "log.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]


# Checkpoints.


@pytest.mark.lengthy
def test_stopped_and_continued_is_the_same_as_one_run(tmp_path):
    """A run continues exactly, even if it stops within a stage, an epoch (10 pictures) and an interval of the log."""
    trainer = {"log_every_images": 8, "save_every_images": 4}
    once, twice = (config(tmp_path / name, trainer=trainer | {"keep": 5}) for name in ("once", "twice"))
    whole = run(once)
    with pytest.raises(SystemExit):  # Lightning turns an interruption into it
        run(twice, Stop(12))
    torch.manual_seed(99)  # other random numbers drawn in between
    torch.randn(5)
    path = newest_checkpoint(twice.folder / "checkpoints")
    assert path.name == "images-000000012.ckpt"
    continued = run(twice, ckpt_path=path)
    assert continued.images == whole.images == 16
    last = [load_state(c.folder / "checkpoints" / "images-000000016.ckpt") for c in (once, twice)]
    for state in last:
        assert state.keys() >= {"state_dict", "optimizer_states", "images", "callbacks", "loops"}
        state.pop("loops")  # Lightning's own counters; some count from the start of the process
    assert_same(*last)
    assert rows(once) == rows(twice) and [row["images"] for row in rows(twice)] == ["8", "16"]


@pytest.mark.lengthy
def test_which_checkpoints_stay(tmp_path):
    c = config(tmp_path, trainer={"save_every_images": 4, "keep": 1})
    run(c)
    # 8 ends the first stage; 16 is the newest, and ends the second.
    names = sorted(path.name for path in (c.folder / "checkpoints").iterdir())
    assert names == ["images-000000008.ckpt", "images-000000016.ckpt"]


@pytest.mark.lengthy
def test_a_damaged_checkpoint_is_set_aside(tmp_path):
    c = config(tmp_path)
    run(c)
    folder = c.folder / "checkpoints"
    newest = newest_checkpoint(folder)
    content = newest.read_bytes()
    newest.write_bytes(content[: len(content) // 2])
    (folder / "images-000000020.ckpt.unfinished").touch()
    with pytest.warns(UserWarning, match=r"damaged, now .*16.ckpt.damaged; continuing from the one before"):
        assert newest_checkpoint(folder).name == "images-000000008.ckpt"
    continued = run(c, ckpt_path=folder / "images-000000008.ckpt")
    assert continued.images == 16 and newest_checkpoint(folder) == newest
    assert not (folder / "images-000000020.ckpt.unfinished").exists()
    assert newest_checkpoint(tmp_path / "nothing") is None


@pytest.mark.lengthy
def test_checkpoints_that_do_not_fit(tmp_path):
    c = config(tmp_path)
    run(c)
    path = newest_checkpoint(c.folder / "checkpoints")
    other = config(tmp_path / "other", model={"conditioning": {"token_dim": 16, "heads": 2}})
    message = r"36 entries differ, for example averaged.adapters.4.key.bias is \[8\] there and \[16\] here"
    with pytest.raises(ValueError, match=message):
        run(other, ckpt_path=path)
    third = config(tmp_path / "third", data={"batch": 6}, stages=[{"name": "adapt", "images": 12}])
    with pytest.raises(ValueError, match=r"after 16 images, which is not a multiple of data.batch=6"):
        run(third, ckpt_path=path)


@pytest.mark.lengthy
def test_rates_may_change_when_a_run_is_continued(tmp_path):
    c = config(tmp_path)
    run(c)
    path = c.folder / "checkpoints" / "images-000000008.ckpt"
    slower = config(tmp_path, optim={"lr_generator": 1e-3})
    made = run(slower, ckpt_path=path)
    assert made.trainer.optimizers[0].param_groups[0]["lr"] == 1e-3


# The guard.


class Poison(Callback):
    """A callback that puts `value` into the guidance loss or a weight's gradient after `images` images."""

    def __init__(self, images: int, value: float, where: str) -> None:
        self.images, self.value, self.where = images, value, where

    def on_train_batch_start(self, trainer, pl_module, *rest):
        if pl_module.images != self.images:
            return
        if self.where == "guide":
            pl_module.guide = lambda images, prompts, camera: images.mean() * self.value
        else:
            module_name, weight = self.where.split(":")
            weight = dict(pl_module.named_parameters())[f"{module_name}.{weight}"]
            weight.register_hook(lambda gradient: gradient * self.value)


@pytest.mark.parametrize(
    ("value", "where", "named"),
    [
        (
            math.nan,
            "guide",
            ["guidance", "the weights of generator", "the weights of mapper", "the weights of adapters"],
        ),
        (math.inf, "generator:mapper.fuse.bias", ["the weights of mapper"]),
        (math.nan, "critic:discriminator.b4.out.bias", ["the weights of discriminator"]),
    ],
)
@pytest.mark.lengthy
def test_the_guard_names_step_term_and_group(tmp_path, value, where, named):
    c = config(tmp_path)
    made = module(c)
    with pytest.raises(NonFiniteLoss, match=r"step 4 \(stage align, 12 images\): ") as error:
        fit(made, *make_callbacks(c, None), Poison(12, value, where))
    what = str(error.value).split("images): ")[1].split(". The update")[0].split(", ")
    for found, name in zip(what, named, strict=True):
        assert f"{name} is" in found and found.endswith((" is nan", " is inf"))
    assert "lower the learning rate and continue from the last checkpoint" in str(error.value)
    assert all(p.isfinite().all() for p in made.parameters())
    saved = load_state(c.folder / "nonfinite-000000012-process0.pt")
    assert saved["images"] == 12 and saved["seed"] == 5 and saved["image"].shape == (4, 3, SIZE, SIZE)
    assert len(saved["fake"]["prompts"]) == 4 and saved["fake"]["eot"].shape[0] == 4
    assert str(c.folder / "nonfinite-000000012-process0.pt") in str(error.value)


@pytest.mark.lengthy
def test_the_guard_lets_good_steps_pass(tmp_path):
    c = config(tmp_path)
    guarded, free = module(c), module(c)
    fit(guarded, NonFiniteGuard(tmp_path))
    fit(free)
    assert_same(guarded.state_dict(), free.state_dict())
    assert list(tmp_path.iterdir()) == []


# The log.


@pytest.mark.lengthy
def test_log(tmp_path, capsys):
    c = config(tmp_path)
    noted: list[dict[str, Tensor]] = []

    class Note(Callback):
        def on_train_batch_end(self, trainer, pl_module, *rest):
            noted.append(dict(pl_module.losses))

    made = module(c)
    logger = CSVLogger(tmp_path, "lightning")
    fit(made, Note(), Log(8, c.folder), logger=logger)
    first, second = rows(c)
    assert [(row["images"], row["stage"]) for row in (first, second)] == [("8", "adapt"), ("16", "align")]
    assert first["guidance"] == "" and float(second["guidance"]) > 0
    mean = (noted[0]["generator"] + noted[1]["generator"]) / 2
    assert float(first["generator"]) == pytest.approx(float(mean), rel=1e-4)
    assert float(first["r1"]) == pytest.approx(float(noted[0]["r1"]), rel=1e-4)  # only one of the two steps has it
    assert capsys.readouterr().out.startswith("adapt 8/16 images  generator ")
    logger.save()
    with open(Path(logger.log_dir) / "metrics.csv", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["8", "16"]


@pytest.mark.lengthy
def test_measurements_are_logged(tmp_path):
    class Metric(Every):
        def act(self, trainer, module):
            module.measured["score"] = module.images / 4

    c = config(tmp_path)
    fit(module(c), *make_callbacks(c, None, (Metric(8),)))
    assert [row["score"] for row in rows(c)] == ["", "2", "", "4"]


@pytest.mark.lengthy
def test_intervals(tmp_path):
    """An interval may be no multiple of the batch, and it may be longer than the run."""
    acted: dict[int, list[int]] = {6: [], 100: []}

    class Count(Every):
        @property
        def state_key(self):
            return f"count {self.images}"

        def act(self, trainer, module):
            acted[self.images].append(module.images)

    fit(module(), Count(6), Count(100))
    assert acted == {6: [8, 12, 16], 100: [16]}
    with pytest.raises(ValueError, match=r"Count\(images=0\): must be at least 1"):
        Count(0)


# Pictures.


@pytest.mark.lengthy
def test_sheets(tmp_path):
    c = config(tmp_path)
    made = run(c)
    folder = c.folder / "samples"
    assert sorted(path.name for path in folder.iterdir()) == [
        "images-000000008.png",
        "images-000000016.png",
        "prompts.txt",
    ]
    assert (folder / "prompts.txt").read_text() == "red hair\nblue hat\n"
    with Image.open(folder / "images-000000016.png") as picture:
        assert picture.size == (4 * SIZE, 2 * SIZE)  # 2 seeds x 2 views, 2 prompts
        corner = torch.tensor(numpy.array(picture.crop((SIZE, SIZE, 2 * SIZE, 2 * SIZE)))).permute(2, 0, 1)
    # Second prompt, first seed, second view (the front), rendered with the averaged weights.
    text = encode(list(c.samples.prompts))
    z = torch.randn(1, 8, generator=torch.Generator().manual_seed(0))
    camera = made.averaged.config.around([0.0])
    one = type(text)(text.words[1:], text.eot[1:], text.mask[1:])
    with torch.no_grad():
        expected = made.averaged(z, camera, one, truncation_psi=0.7).image[0]
    shown = ((expected.clamp(-1, 1) + 1) / 2 * 255 + 0.5).floor()
    assert (corner - shown).abs().max() <= 1  # rounding


def test_views_are_left_and_right_of_the_front():
    generator = module().averaged
    with torch.no_grad():
        found = portraits(generator, encode(PROMPTS[:1]), [3], [-90.0, 0.0, 90.0], 0.7)
    assert found.shape == (1, 1, 3, 3, SIZE, SIZE)
    for degrees, expected in ((-90.0, -1), (0.0, 0), (90.0, 1)):
        place = generator.config.around([degrees])[0, :16].reshape(4, 4)[:3, 3]
        radius = generator.config.camera_radius
        assert float(place[0]) == pytest.approx(expected * radius, abs=1e-4)


@pytest.mark.lengthy
def test_collapse_is_noticed(tmp_path, caplog):
    """The monitor warns if the generator ignores z for one of the prompts."""
    c = config(tmp_path)
    text = encode(PROMPTS[:2])
    made = module(c)

    def collapsed(z, camera, asked, truncation_psi=1.0, **_):
        if torch.equal(asked.eot[0], text.eot[1]):
            z = z[:1].expand_as(z)
        return type(made.averaged).map(made.averaged, z, camera, asked, truncation_psi)

    made.averaged.map = collapsed
    with caplog.at_level(logging.WARNING):
        fit(made, CollapseMonitor(8, PROMPTS[:2], text, below=1e-3), Log(8, c.folder))
    warned = [record.getMessage() for record in caplog.records if "hardly differ" in record.getMessage()]
    assert len(warned) == 2 and "after 8 images, portraits of 'blue hat' hardly differ: 0, below 0.001" in warned[0]
    assert all(float(row["diversity"]) > 0 and float(row["diversity_least"]) == 0 for row in rows(c))


@pytest.mark.lengthy
def test_variety_is_not_warned_of(tmp_path, caplog):
    c = config(tmp_path)
    with caplog.at_level(logging.WARNING):
        fit(module(c), CollapseMonitor(16, PROMPTS[:2], encode(PROMPTS[:2]), below=1e-3), Log(16, c.folder))
    assert not [record for record in caplog.records if "hardly" in record.getMessage()]
    assert float(rows(c)[0]["diversity_least"]) > 1e-3


def test_text_must_be_that_of_the_prompts(tmp_path):
    for make in (
        lambda: SampleSheets(8, tmp_path, PROMPTS[:3], encode(PROMPTS[:2]), [0], [0.0], 0.7),
        lambda: CollapseMonitor(8, [], encode(PROMPTS[:2]), 0.1),
    ):
        with pytest.raises(ValueError, match=r"prompts, features of 2: give features for each"):
            make()
    with pytest.raises(ValueError, match="keep=0: at least the newest"):
        Checkpoints(8, tmp_path, 0)


def test_without_prompts_there_are_no_sheets(tmp_path):
    c = config(tmp_path)
    kinds = [type(callback) for callback in make_callbacks(c, None)]
    assert kinds == [NonFiniteGuard, Log, Checkpoints]
    kinds = [type(callback) for callback in make_callbacks(config(trainer={"sample_every_images": 0}), encode(PROMPTS))]
    assert kinds == [NonFiniteGuard, Log, Checkpoints]


def test_the_batch_must_be_whole(tmp_path):
    with pytest.raises(ValueError, match=r"a batch of 3 in each of 1 processes, in 1 parts: .* data.batch=4"):
        fit(module(), data=[batch(3)])
