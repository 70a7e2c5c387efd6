"""Tests of the training of the network that corrects splats, on a tiny generator."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from tiny_pipeline import write_portrait
from tiny_portraits import plain

from dreamportrait.eg3d.planes import Planes, trained_angles
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.export.splat_head import SplatHead, load_splat_head
from dreamportrait.mini import splat_scores
from dreamportrait.mini import splats as recipe
from dreamportrait.mini.splat_scores import random_cameras
from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline
from dreamportrait.weights.hashing import weights_hash


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> TriPlaneGenerator:
    monkeypatch.setattr(recipe, "COUNTS", (1500, 1000))
    monkeypatch.setattr(recipe, "IDENTITIES", 4)
    return plain().requires_grad_(False)


def make(generator: TriPlaneGenerator) -> recipe.MakeHead:
    def head(caption: str, seed: int) -> Planes:
        assert caption and seed >= recipe.FIRST_SEED
        z = torch.randn(1, generator.config.z_dim, generator=torch.Generator().manual_seed(seed))
        w = generator.map(z, generator.config.around([0.0]))
        return Planes(generator, generator.synthesize_planes(w), w)

    return head


def test_a_stopped_run_continues_as_if_it_had_not_stopped(generator: TriPlaneGenerator, tmp_path: Path) -> None:
    recipe.train(make(generator), generator, tmp_path / "whole", tmp_path / "a", steps=6)
    training = recipe.SplatTraining(make(generator), generator, 6)
    state = {"network": training.network, "optimizer": training.optimizer}
    recipe.fit(training.step, state, 5, tmp_path / "b", seed=recipe.SEED)  # stops within a portrait
    recipe.train(make(generator), generator, tmp_path / "parts", tmp_path / "b", steps=6)
    whole, parts = (load_splat_head(tmp_path / name).state_dict() for name in ("whole", "parts"))
    # A portrait made anew can lie elsewhere in memory, which changes the order of sums. A step moves weights by 4e-3.
    assert all((whole[name] - parts[name]).abs().max() < 1e-5 for name in whole)
    fresh = SplatHead().state_dict()
    assert whole["last.weight"].any() and not fresh["last.weight"].any()


@pytest.mark.lengthy
def test_a_command_trains_measures_and_seals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generator: TriPlaneGenerator
) -> None:
    monkeypatch.setattr(splat_scores, "PORTRAITS", 1)
    monkeypatch.setattr(splat_scores, "CAMERAS", 2)
    model, out = write_portrait(tmp_path / "model"), tmp_path / "splats"
    words = ["--model", str(model), "--work", str(tmp_path / "work"), "--out", str(out), "--steps", "2"]
    done = CliRunner().invoke(recipe.main, words)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in out.iterdir()) == sorted(recipe.FILES)
    card = (out / "README.md").read_text()
    assert card.startswith("# mini/splats") and "PSNR, corrected" in card and f"--model {model} --steps 2" in card
    pipe = DreamPortraitPipeline.from_pretrained(model)
    assert load_splat_head(out).made_for == weights_hash(pipe.generator.generator)
    again = CliRunner().invoke(recipe.main, words)
    assert again.exit_code == 1 and "not empty; name another folder, or allow overwriting" in again.output
    assert CliRunner().invoke(recipe.main, [*words, "--overwrite"]).exit_code == 0


def test_an_existing_result_stays(generator: TriPlaneGenerator, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(FileExistsError, match="name another one"):
        recipe.train(make(generator), generator, tmp_path / "out", tmp_path / "work", steps=1)


def test_splats_become_more_like_the_pictures(generator: TriPlaneGenerator) -> None:
    """The same portrait from the same cameras, again and again: its error falls."""
    training = recipe.SplatTraining(make(generator), generator, 60)
    losses = [float(training.step(index % recipe.VIEWS)["loss"].detach()) for index in range(40)]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])


def test_cameras_stay_within_the_trained_range(generator: TriPlaneGenerator) -> None:
    cameras = random_cameras(generator, 200, 0)
    yaw, pitch = trained_angles(generator)
    x, y, z = cameras[:, [3, 7, 11]].unbind(1)
    angles = torch.rad2deg(torch.stack([torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z))])).abs()
    assert angles[0].max() <= yaw + 0.01 and angles[1].max() <= pitch + 0.01
    assert angles[0].max() > 0.9 * yaw and angles[1].max() > 0.9 * pitch
    assert torch.equal(cameras, random_cameras(generator, 200, 0))
