"""Tests of how much portraits differ, against cases computed by hand."""

import pytest
import torch

from dreamportrait.metrics.diversity import across, color_difference, feature_distance, within


def test_colors_by_hand() -> None:
    images = torch.zeros(2, 3, 3, 16, 16)
    images[0, 1], images[0, 2] = 0.3, -0.5
    torch.testing.assert_close(color_difference(images), torch.tensor([(0.3 + 0.5 + 0.8) / 3, 0.0]))
    beyond = color_difference(images * 10)[0]
    assert beyond == pytest.approx(4 / 3, rel=1e-5)  # colours beyond white and black are clipped


def test_features_by_hand() -> None:
    same, opposite, mixed = [[1.0, 0], [1, 0], [1, 0]], [[1.0, 0], [-1, 0], [1, 0]], [[1.0, 0], [0, 1], [0.6, 0.8]]
    # pairs: 0 0 0; 2 0 2; 1 0.4 0.2
    found = feature_distance(torch.tensor([same, opposite, mixed]))
    torch.testing.assert_close(found, torch.tensor([0, 4 / 3, 1.6 / 3]).double())


def test_a_collapsed_generator() -> None:
    """A generator with one face per prompt must have no diversity within a prompt, but some across prompts."""
    features = torch.eye(3)[:, None].expand(3, 4, 3)
    images = torch.tensor([-0.5, 0.0, 0.5])[:, None, None, None, None].expand(3, 4, 3, 8, 8)
    assert within(features, images) == (0, 0)
    assert across(features, images) == pytest.approx((1, 2 / 3))  # colours differ by 0.5, 1, 0.5


def test_one_picture_has_nothing_to_differ_from() -> None:
    with pytest.raises(ValueError, match="1 pictures of each prompt: differences need at least 2"):
        color_difference(torch.zeros(2, 1, 3, 8, 8))
    with pytest.raises(ValueError, match="differences need at least 2"):
        feature_distance(torch.zeros(2, 1, 4))
