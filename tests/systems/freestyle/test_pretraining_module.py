"""Tests of pretraining with Lightning: what is trained, saved and logged, and runs that were stopped."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_freestyle import styled
from tiny_training import trainer

from dreamportrait.core import settings
from dreamportrait.core.settings import ConfigError
from dreamportrait.systems.freestyle.module import Draws, PretrainingModule
from dreamportrait.systems.freestyle.run_config import FreestyleConfig
from dreamportrait.training.checkpoints import Checkpoints, saved_checkpoints
from dreamportrait.training.log import Log


def config(folder: Path, images: int = 16, **pretrain: Any) -> FreestyleConfig:
    return FreestyleConfig.model_validate(
        {
            "system": "freestyle",
            "run": {"name": "tiny", "folder": str(folder), "seed": 5},
            "data": {"batch": 4, "workers": 0},
            "stages": [{"name": "pretrain", "images": images}],
            "pretrain": {"statistics": 8, "ema_images": 16, "render_share": 0.5} | pretrain,
        }
    )


def run(c: FreestyleConfig, until: int | None = None, checkpoint: Path | None = None) -> PretrainingModule:
    """Train, or train only `until` images of the run."""
    module = PretrainingModule(styled(), c)
    draws = Draws(c.data.batch, c.total_images)
    if checkpoint is not None:
        draws.load_state_dict({"images": 8})
    runner = trainer(Log(4, c.folder), Checkpoints(8, c.folder, keep=5), max_steps=until and until // 4 or -1)
    with warnings.catch_warnings():
        # Lightning's own warnings, about a deprecated torch function in its code and loaders without processes.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        runner.fit(module, draws, ckpt_path=checkpoint)
    return module


@pytest.mark.lengthy
def test_it_trains_h_alone(tmp_path, capsys):
    before = styled()
    module = run(config(tmp_path))
    assert module.images == 16 and set(module.losses) == {"planes", "w", "render"}
    assert not torch.equal(module.i2t.const, before.i2t.const)
    assert not torch.equal(module.i2t.mean_planes, before.i2t.mean_planes)
    assert torch.equal(module.averaged.mean_planes, module.i2t.mean_planes)
    generator = module._held[0].generator
    assert all(torch.equal(a, b) for a, b in zip(generator.parameters(), before.generator.parameters(), strict=True))
    assert {name.split(".")[0] for name in module.state_dict()} == {"i2t", "averaged"}
    lines = (tmp_path / "tiny" / "log.csv").read_text().splitlines()
    assert len(lines) == 5 and lines[0].startswith("images") and "planes" in lines[0]


@pytest.mark.lengthy
def test_a_stopped_run_continues_to_the_bit(tmp_path, capsys):
    whole = run(config(tmp_path / "whole"))
    run(config(tmp_path / "parts"), until=8)
    (saved,) = saved_checkpoints(tmp_path / "parts" / "tiny" / "checkpoints")
    again = run(config(tmp_path / "parts"), checkpoint=saved)
    assert again.images == 16
    for (name, a), b in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_settings_of_the_step():
    made = config(Path("runs"), lr=0.01).settings()
    assert (made.images, made.batch, made.seed, made.lr, made.steps) == (16, 4, 5, 0.01, 4)
    assert [made.renders(step) for step in range(4)] == [False, False, True, True]


def test_contradictions_are_found(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(
        "system: freestyle\nrun: {name: a}\nstages:\n- {name: a, images: 17}\n- {name: b, images: 16, guidance: true}\n"
    )
    with pytest.raises(ConfigError) as caught:
        settings.load(FreestyleConfig, path)
    assert "17 images are no whole number of batches of 16" in str(caught.value)
    assert "stages.1: pretraining has neither guidance nor a prior" in str(caught.value)
