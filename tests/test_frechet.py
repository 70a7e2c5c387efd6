import math

import pytest
import torch

from dreamportrait.metrics.frechet import Moments, frechet_distance


def moments(mean: list[float], variance: list[float]) -> Moments:
    return Moments(torch.tensor(mean).double(), torch.diag(torch.tensor(variance).double()))


def test_hand_computed_diagonal_case() -> None:
    # (1-3)^2 + (0-0)^2 + (sqrt(4)-sqrt(1))^2 + (sqrt(9)-sqrt(9))^2 = 4 + 1
    distance = frechet_distance(moments([1, 0], [4, 9]), moments([3, 0], [1, 9]))
    assert math.isclose(distance, 5, rel_tol=1e-12)


def test_against_a_matrix_root_by_iteration() -> None:
    """Correlated features; the root of C1 C2 by Denman-Beavers iteration."""
    torch.manual_seed(0)
    a, b = (Moments.of(torch.randn(500, 6) @ torch.randn(6, 6) + torch.randn(6)) for _ in range(2))
    y, z = a.covariance @ b.covariance, torch.eye(6).double()
    for _ in range(50):
        y, z = (y + torch.linalg.inv(z)) / 2, (z + torch.linalg.inv(y)) / 2
    expected = (a.mean - b.mean).square().sum() + (a.covariance + b.covariance - 2 * y).trace()
    assert math.isclose(frechet_distance(a, b), float(expected), rel_tol=1e-8)


def test_zero_for_equal_sets_and_symmetric() -> None:
    torch.manual_seed(0)
    a, b = Moments.of(torch.randn(50, 8)), Moments.of(torch.randn(50, 8) * 2)
    assert abs(frechet_distance(a, a)) < 1e-10
    assert math.isclose(frechet_distance(a, b), frechet_distance(b, a), rel_tol=1e-10)


def test_fewer_rows_than_features_is_fine() -> None:
    """The covariance is singular then, and its root is still real."""
    torch.manual_seed(0)
    a, b = torch.randn(5, 16), torch.randn(6, 16)
    assert frechet_distance(Moments.of(a), Moments.of(b)) > 0


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(1, 4), "at least two rows"),
        (torch.tensor([[0.0, 1], [float("nan"), 2], [1, 1]]), "row 1 of the features is not finite"),
    ],
)
def test_bad_features(features: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Moments.of(features)
