"""Tests of view names from camera labels."""

import math

import pytest
import torch

from dreamportrait.geometry.cameras import camera_label, intrinsics_from_fov, official_pose
from dreamportrait.guidance.views import azimuth, views, with_views


def cameras(*degrees: float, pitch: float = math.pi / 2, radius: float = 2.7) -> torch.Tensor:
    """Return cameras that are turned from the front by these angles."""
    yaws = torch.tensor([math.pi / 2 + math.radians(angle) for angle in degrees])
    return camera_label(official_pose(yaws, pitch, radius), intrinsics_from_fov(18.837))


def test_azimuth_is_the_turn_from_the_front_at_any_height_and_distance() -> None:
    turns = [0.0, 20.0, -20.0, 90.0, -90.0, 150.0, -150.0, 180.0]
    expected = torch.tensor([abs(turn) for turn in turns])
    for options in ({}, {"pitch": 1.0}, {"pitch": 2.2, "radius": 0.5}):
        torch.testing.assert_close(azimuth(cameras(*turns, **options)), expected, rtol=0, atol=1e-3)


def test_views() -> None:
    found = views(cameras(0, 44, -44, 46, -46, 90, -134, 136, 180))
    assert found == ["front view"] * 3 + ["side view"] * 4 + ["back view"] * 2


def test_prompts_get_their_own_view_and_the_empty_one_none() -> None:
    prompts = ["a woman", "a man with a hat.", "", " "]
    assert with_views(prompts, cameras(0, 90, 180, 180)) == [
        "a woman, front view",
        "a man with a hat, side view",
        "",
        " ",
    ]
    with pytest.raises(ValueError, match="4 prompts and 1 cameras: give one camera for each prompt"):
        with_views(prompts, cameras(0))
    with pytest.raises(ValueError, match="25 numbers per row"):
        views(torch.zeros(2, 16))
