"""Tests of heads: poses by name, and pictures from all sides."""

import math

import pytest
import torch
from small_heads import arm, wall

from dreamportrait.systems.heads.head import Head
from dreamportrait.systems.heads.skinning import posed


def head() -> Head:
    model = arm()
    assert model.mean_texture is not None
    return Head(model, torch.tensor([0.5, 0.0]), model.mean_texture)


def test_poses_by_name_add_up() -> None:
    found = head().posed(grow=0.5).posed(elbow=(0, 0, 90))
    theta = torch.tensor([[[0.0, 0, 0], [0, 0, math.pi / 2]]])
    expected = posed(arm(), torch.tensor([[0.5, 0.0]]), torch.tensor([[0.5]]), theta)[0]
    torch.testing.assert_close(found.vertices, expected)
    assert head().psi is None  # the head itself did not change


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown expression 'grew'; the nearest are grow"):
        head().posed(grew=1.0)
    with pytest.raises(ValueError, match="unknown joint 'elbows'; the nearest are elbow"):
        head().posed(elbows=(1, 0, 0))


def test_views() -> None:
    model = wall()
    assert model.mean_texture is not None
    views = Head(model, torch.zeros(1), model.mean_texture).view([-30.0, 0.0, 30.0], size=32)
    assert [picture.size for picture in views.pictures] == [(32, 32)] * 3
    left, front, right = views.opacity.sum((1, 2, 3)).tolist()
    assert left == pytest.approx(right, rel=1e-3)
    assert left < front  # a square seen from the side is narrower
