"""Tests of telling pictures of a model's own world from others."""

import math

import pytest
import torch
from torch import Tensor

from dreamportrait import DreamPortraitPipeline
from dreamportrait.geometry.images import from_bytes
from dreamportrait.mini.strangers import strangers
from dreamportrait.miniworld.world import load
from dreamportrait.prior.inversion import PictureFeatures
from dreamportrait.systems.dreamportrait import own_world
from dreamportrait.systems.dreamportrait.own_world import LIMIT, OwnWorld
from dreamportrait.text.loading import load_clip


def cloud(count: int, seed: int, directions: int = 8, size: int = 200) -> Tensor:
    """Return points near a space of few dimensions."""
    basis = torch.randn(directions, size, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(seed)
    points = torch.randn(count, directions, generator=draw) @ basis
    return points + 0.3 * torch.randn(count, size, generator=draw) + 5


def test_others_of_the_same_kind_are_usual_and_those_beside_the_space_are_not() -> None:
    world = OwnWorld(cloud(100, seed=1))
    same = world.strangeness(cloud(200, seed=2))
    # The space is fitted to 100 points, and what is usual to 80 of them: a few per cent.
    assert float(same.median()) == pytest.approx(1, abs=0.15) and (same > LIMIT).float().mean() < 0.01
    assert (world.strangeness(cloud(200, seed=2) + torch.randn(200)) > LIMIT).all()
    assert (world.strangeness(torch.zeros(1, 200)) > LIMIT).all()


def test_further_along_the_space_is_not_strange() -> None:
    points = cloud(100, seed=1)
    mean = points.mean(0)
    assert (OwnWorld(points).strangeness(mean + 1.5 * (points - mean)) < LIMIT).all()


def test_a_feature_that_never_changes_does_not_count_alone() -> None:
    points = cloud(100, seed=1)
    points[:, 0] = 0
    other = cloud(1, seed=2)
    other[:, 0] = 1e-3
    found = OwnWorld(points).strangeness(other)
    assert math.isfinite(float(found)) and float(found) < LIMIT


@pytest.fixture(scope="module")
def mini() -> tuple[OwnWorld, PictureFeatures]:
    pipe = DreamPortraitPipeline.from_pretrained("mini")
    pipe.set_progress_bar_config(disable=True)
    see = PictureFeatures(load_clip("mini/clip-a").model)
    return pipe._own_world(see), see


@pytest.mark.lengthy
def test_faces_of_the_miniature_world_are_known_and_surfaces_and_photographs_are_not(
    mini: tuple[OwnWorld, PictureFeatures],
) -> None:
    world, see = mini
    faces = from_bytes(torch.tensor(load("validation", 50).images))
    with torch.no_grad():
        assert (world.strangeness(see(faces)) <= LIMIT).float().mean() >= 0.96  # of 400: 99 %
        for name, pictures in strangers(faces, 64).items():
            if name.startswith(("plain", "clouds", "noise", "photographs", "the middle")):
                assert (world.strangeness(see(pictures[:30])) > LIMIT).float().mean() >= 0.96, name


@pytest.mark.lengthy
def test_pictures_of_the_world_are_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_world, "PICTURES", 50)
    pipe = DreamPortraitPipeline.from_pretrained("mini")
    pipe.set_progress_bar_config(disable=True)
    photo = pipe("a woman", seed=5).pictures[0]
    found = pipe.invert(photo, steps=0, tuning_steps=0)
    world = pipe._world
    assert world is not None and found.strangeness is not None and found.strangeness < LIMIT and found.notes == ()
    pipe.invert(photo, steps=0, tuning_steps=0)
    assert pipe._world is world


@pytest.mark.lengthy
def test_a_model_without_an_inverter_says_that_it_cannot_tell() -> None:
    pipe = DreamPortraitPipeline.from_pretrained("mini")
    pipe.set_progress_bar_config(disable=True)
    pipe.inverter = None
    found = pipe.invert(pipe("a woman", seed=5).pictures[0], steps=0, tuning_steps=0)
    assert found.strangeness is None and "no network from pictures to w" in found.notes[0]
