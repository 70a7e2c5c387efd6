"""Tests of following landmarks: known expressions and turns are found again from noisy landmarks."""

import numpy as np
import pytest
import torch
from numpy import ndarray as Array
from small_heads import arm

from dreamportrait.geometry.cameras import orbit
from dreamportrait.geometry.meshes import to_screen
from dreamportrait.mini.models import from_pretrained
from dreamportrait.miniworld.world import RADIUS
from dreamportrait.systems.heads.landmarks import landmarks
from dreamportrait.systems.heads.model import HeadModel
from dreamportrait.systems.heads.skinning import posed, rodrigues, to_world
from dreamportrait.systems.heads.tracking import follow

USED = (
    *("jawOpen", "mouthSmileLeft", "mouthSmileRight", "eyeBlinkLeft", "eyeBlinkRight", "browInnerUp"),
    *("browDownLeft", "mouthPucker", "mouthFrownLeft", "jawLeft"),
)


@pytest.fixture(scope="module")
def model() -> HeadModel:
    head: HeadModel = from_pretrained("mini/head")
    return head


def take(model: HeadModel, frames: int) -> tuple[Array, Array, Array]:
    """Return times [T], expressions [T, e] and turns of the neck [T, 3] that change smoothly."""
    times = np.arange(frames) / 30
    psi = np.zeros((frames, model.num_expressions))
    for i, name in enumerate(USED):
        psi[:, model.expression(name)] = 0.4 + 0.4 * np.sin(2 * np.pi * times * (0.3 + 0.07 * i) + i)
    turns = np.stack([0.15 * np.sin(3 * times), 0.3 * np.sin(2 * times), 0.1 * np.cos(2 * times)], 1)
    return times, psi, turns


def in_space(model: HeadModel, beta: torch.Tensor, psi: Array, turns: Array) -> torch.Tensor:  # [T, 68, 3]
    theta = torch.zeros(len(psi), model.num_joints, 3)
    theta[:, model.joint("neck")] = torch.tensor(turns, dtype=torch.float32)
    vertices = posed(model, beta.expand(len(psi), -1), torch.tensor(psi, dtype=torch.float32), theta)
    return to_world(model, landmarks(model, vertices))


def in_picture(points: torch.Tensor, noise: float) -> Array:  # [T, 68, 2] in widths of a picture of 512 pixels
    camera = orbit([0.0], 0.0, RADIUS, (0.0, 0.0, 0.0)).expand(len(points), -1)
    flat = to_screen(points, camera, 1)[..., :2].numpy()
    moved: Array = flat + np.random.default_rng(0).normal(size=flat.shape) * noise / 512
    return moved


def degrees_apart(first: Array, second: Array) -> Array:
    a, b = (rodrigues(torch.tensor(x, dtype=torch.float64)) for x in (first, second))
    trace = (a.transpose(1, 2) @ b).diagonal(dim1=1, dim2=2).sum(1)
    found: Array = torch.rad2deg(torch.acos(((trace - 1) / 2).clamp(-1, 1))).numpy()
    return found


@pytest.mark.lengthy
@pytest.mark.parametrize("known", [True, False])
def test_a_known_track_is_recovered(model: HeadModel, known: bool) -> None:
    """The limits are those of docs/heads.md, for 68 landmarks with noise of half a pixel in a picture of 512."""
    times, psi, turns = take(model, 30)
    beta = torch.randn(model.num_shapes, generator=torch.Generator().manual_seed(1)) * 0.8
    seen = in_picture(in_space(model, beta, psi, turns), noise=0.5)
    found = follow(model, seen, times, beta if known else None)
    weights = np.stack([found.track.weights[name] for name in model.expr_names], 1)
    assert np.abs(weights - psi).mean() <= 0.08
    assert np.abs(weights - psi)[:, [model.expression(n) for n in ("jawOpen", "eyeBlinkLeft")]].mean() <= 0.08
    assert degrees_apart(found.track.rotations["neck"], turns).mean() <= 2
    assert 0 <= weights.min() <= weights.max() <= 1
    assert found.error * 512 < 1.5
    # A head that takes the filmed face for the mean one sees expressions that are not there.
    if not known:
        assert (found.beta - beta).abs().mean() < 0.8 * beta.abs().mean()


@pytest.mark.lengthy
def test_landmarks_in_space_may_be_moved_and_scaled(model: HeadModel) -> None:
    times, psi, turns = take(model, 8)
    points = in_space(model, torch.zeros(model.num_shapes), psi, turns).numpy().astype(np.float64)
    flip = np.diag([1.0, -1, -1])  # y down and z away, as detectors have it
    found = follow(model, 300 * points @ flip + [250, 250, 0], times, torch.zeros(model.num_shapes))
    weights = np.stack([found.track.weights[name] for name in model.expr_names], 1)
    assert np.abs(weights - psi).mean() <= 0.08
    # What all frames have in common goes into the alignment; how the neck turns between them is found.
    assert degrees_apart(found.track.rotations["neck"], turns).max() <= 10
    change = found.track.rotations["neck"] - turns
    assert np.abs(np.degrees(change - change.mean(0))).max() <= 2


def test_wrong_landmarks_are_refused(model: HeadModel) -> None:
    seen = np.zeros((3, 68, 2))
    seen[1, 0, 0] = np.nan
    with pytest.raises(ValueError, match="landmarks of frame 1 hold NaN"):
        follow(model, seen, np.arange(3))
    with pytest.raises(ValueError, match=r"shape \[3, 67, 2\], must be \[T, 68, 2 or 3\]"):
        follow(model, np.zeros((3, 67, 2)), np.arange(3))
    with pytest.raises(ValueError, match="all landmarks are at the same place"):
        follow(model, np.zeros((3, 68, 3)), np.arange(3))
    with pytest.raises(ValueError, match="has no expressions"):
        follow(arm(exprdirs=None, expr_names=()), np.zeros((3, 68, 2)), np.arange(3))
