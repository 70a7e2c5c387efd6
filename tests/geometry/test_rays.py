"""Tests of camera rays against official values and values computed by hand."""

import pytest
import torch
from goldens import load
from torch import Tensor
from torch.testing import assert_close

from dreamportrait.geometry.rays import rays_from_label

GOLDEN = load("camera").info["ray_sampler"]


def label_of(cam2world: list[list[float]], intrinsics: list[list[float]]) -> Tensor:
    return torch.cat([torch.tensor(cam2world).flatten(), torch.tensor(intrinsics).flatten()])[None]  # [1, 25]


@pytest.mark.parametrize("case", GOLDEN, ids=["frontal", "skewed", "from below"])
def test_golden(case: dict) -> None:
    label = label_of(case["c2w"], case["intrinsics"])
    origins, directions = rays_from_label(label, case["resolution"])
    # Sums of three float32 numbers of size 1 to 3 are off by a few units in the last place.
    close = {"rtol": 0, "atol": 1e-6}
    assert_close(directions, torch.tensor(case["directions"])[None], **close)
    assert_close(origins, torch.tensor(case["origins"])[None].expand_as(directions), **close)


def test_by_hand() -> None:
    """A camera at the origin that looks along z, with focal length 1, has pixel centres at -1/4 and 1/4, row by row."""
    label = label_of(torch.eye(4).tolist(), [[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
    origins, directions = rays_from_label(label, 2)
    corners = torch.tensor([[[-0.25, -0.25, 1.0], [0.25, -0.25, 1.0], [-0.25, 0.25, 1.0], [0.25, 0.25, 1.0]]])
    assert_close(directions, corners / 1.125**0.5)
    assert origins.tolist() == [[[0.0, 0.0, 0.0]] * 4]


def test_each_camera_of_a_batch_has_its_own_rays() -> None:
    labels = torch.cat([label_of(case["c2w"], case["intrinsics"]) for case in GOLDEN])
    origins, directions = rays_from_label(labels.double(), 5)
    assert directions.dtype == torch.float64
    assert_close(directions.norm(dim=-1), torch.ones(3, 25, dtype=torch.float64))
    for i, label in enumerate(labels):
        alone = rays_from_label(label[None].double(), 5)
        assert torch.equal(origins[i], alone[0][0])
        assert torch.equal(directions[i], alone[1][0])


def test_empty_batch() -> None:
    origins, directions = rays_from_label(torch.zeros(0, 25), 4)
    assert origins.shape == directions.shape == (0, 16, 3)


@pytest.mark.parametrize(
    ("label", "resolution", "error", "message"),
    [
        (torch.zeros(25), 4, ValueError, r"label must have rank 2 \[N, 25\], got shape \[25\]"),
        (torch.zeros(2, 16), 4, ValueError, r"label must have 25 numbers .*got shape \[2, 16\]"),
        (torch.zeros(2, 25, dtype=torch.long), 4, TypeError, "label must be floating point, got torch.int64"),
        ([0.0] * 25, 4, TypeError, "label must be a torch.Tensor, got list"),
        (torch.zeros(2, 25), 0, ValueError, "resolution must be at least 1, got 0"),
        (torch.zeros(2, 25), 64.0, TypeError, "resolution must be an int, got 64.0"),
    ],
)
def test_bad_arguments(label: Tensor, resolution: int, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        rays_from_label(label, resolution)
