import math
import warnings
from functools import reduce
from operator import add

import pytest
import torch

from dreamportrait.metrics.frechet import Moments, Sums, frechet_distance


def moments(mean: list[float], variance: list[float]) -> Moments:
    return Moments(torch.tensor(mean).double(), torch.diag(torch.tensor(variance).double()))


def test_hand_computed_diagonal_case() -> None:
    # (1-3)^2 + (0-0)^2 + (sqrt(4)-sqrt(1))^2 + (sqrt(9)-sqrt(9))^2 = 4 + 1
    distance = frechet_distance(moments([1, 0], [4, 9]), moments([3, 0], [1, 9]))
    assert math.isclose(distance, 5, rel_tol=1e-12)


def test_against_a_matrix_root_by_iteration() -> None:
    """Use correlated features, and take the root of C1 C2 by Denman-Beavers iteration."""
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
    """The covariance is then singular, but its root is still real."""
    torch.manual_seed(0)
    a, b = torch.randn(5, 16), torch.randn(6, 16)
    assert frechet_distance(Moments.of(a), Moments.of(b)) > 0


def test_parts_in_any_size_and_order() -> None:
    """Parts must add up to the whole, also far from the origin, where sums of squares would cancel."""
    torch.manual_seed(0)
    features = torch.randn(300, 6) + 1000
    whole = Moments.of(features)
    for size, order in ((1, torch.arange(300)), (7, torch.randperm(300)), (299, torch.randperm(300))):
        found = reduce(add, (Sums.of(part) for part in features[order].split(size))).moments()
        torch.testing.assert_close(found.mean, whole.mean, rtol=1e-12, atol=0)
        torch.testing.assert_close(found.covariance, whole.covariance, rtol=0, atol=1e-11)
    torch.testing.assert_close(whole.covariance, features.double().T.cov(), rtol=0, atol=1e-11)


def test_against_torchmetrics() -> None:
    """Compare with the whole metric of torchmetrics, with a small network in place of Inception."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchmetrics.image.fid import FrechetInceptionDistance

    class Means(torch.nn.Module):
        num_features = 12

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)

    torch.manual_seed(0)
    real, made = torch.rand(40, 3, 8, 8), torch.rand(50, 3, 8, 8) ** 2
    metric = FrechetInceptionDistance(Means(), normalize=True, input_img_size=(3, 8, 8)).set_dtype(torch.float64)
    metric.update(real.double(), real=True)
    metric.update(made.double(), real=False)
    ours = frechet_distance(*(Moments.of(Means()(images.double())) for images in (real, made)))
    assert math.isclose(ours, float(metric.compute()), rel_tol=1e-6)  # torchmetrics takes roots of C1 C2's eigenvalues


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
