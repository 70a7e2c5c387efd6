"""Tests of the distances between small patches, against cases computed by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from dreamportrait.geometry.images import from_bytes, to_bytes
from dreamportrait.metrics import region, sharpness
from dreamportrait.metrics.sharpness import (
    Patches,
    RealPatches,
    compare,
    cut,
    finest_level,
    nearest_distance,
    normalised,
    per_picture,
    sliced_wasserstein,
    starts,
)


def noise(count: int, size: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# The finest level.


def test_smooth_pictures_have_no_details() -> None:
    """The binomial filter reproduces constants everywhere, and ramps except where reflection bends them."""
    ramp = (torch.arange(16.0) / 16).expand(1, 3, 16, 16)
    # Sums of 25 products in float32 round by about 1e-7.
    torch.testing.assert_close(
        finest_level(torch.full((1, 3, 16, 16), 0.7)), torch.zeros(1, 3, 16, 16), atol=1e-6, rtol=0
    )
    assert finest_level(ramp)[..., 4:-4].abs().max() < 1e-6


def test_a_point_by_hand() -> None:
    """A point on the reduced grid leaves 6/16 x 6/16 of itself there; neighbours on the grid get 1/16 x 6/16."""
    image = torch.zeros(1, 1, 17, 17)
    image[..., 8, 8] = 1
    # Reduced: 36/256 at the point, 6/256 beside it, 1/256 diagonally. Enlarged at the point: each of the three values
    # is weighted with 4 x the kernel, 4 x (36, 6, 1)/256.
    expected = 1 - 4 * (36 * 36 + 4 * 6 * 6 + 4 * 1 * 1) / 256**2
    assert float(finest_level(image)[0, 0, 8, 8]) == pytest.approx(expected, abs=1e-6)


# Distances.


def test_one_dimension_by_hand() -> None:
    """0 and 1 are moved to 0 and 3, in any order. A direction in one dimension is 1 or -1."""
    first, second = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [3.0]])
    assert sliced_wasserstein(first, second) == pytest.approx(1)  # (0 + 2) / 2


def test_equal_sets_have_no_distance() -> None:
    patches = torch.randn(100, 147, generator=torch.Generator().manual_seed(0))
    assert sliced_wasserstein(patches, patches.flip(0)) < 1e-7  # the order only changes the rounding of products


def test_a_shifted_set() -> None:
    """In two dimensions, a shift by 3 moves projections by 3 |cos|, whose mean is 2 / pi."""
    points = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    found = sliced_wasserstein(points, points + torch.tensor([3.0, 0.0]), directions=4096)
    # |cos| has standard deviation 0.31; the mean of 4096 has 0.005, and three of them are allowed.
    assert found == pytest.approx(6 / math.pi, abs=3 * 3 * 0.005)


def test_nearest_by_hand() -> None:
    asked, real = torch.tensor([[0.0, 0.0], [6.0, 9.0]]), torch.tensor([[3.0, 4.0], [6.0, 8.0]])
    assert nearest_distance(asked, real) == pytest.approx((5 + 1) / 2 / 2**0.5, rel=1e-6)


def test_contrast_and_colour_are_normalised() -> None:
    patches = noise(40, 7).flatten(1)
    changed = (patches.unflatten(1, (3, 49)) * torch.tensor([[[3.0], [0.5], [1.0]]]) + 0.2).flatten(1)
    torch.testing.assert_close(normalised(changed), normalised(patches), atol=1e-5, rtol=0)  # float32, numbers near 1
    colors = normalised(patches).unflatten(1, (3, 49))
    torch.testing.assert_close(colors.mean((0, 2)), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(colors.std((0, 2), correction=0), torch.ones(3), atol=1e-6, rtol=0)
    assert normalised(torch.full((4, 147), 0.3)).abs().max() < 0.1  # a set of one colour stays finite


def test_sets_of_different_size() -> None:
    with pytest.raises(ValueError, match=r"sets \[3, 2\] and \[4, 2\]: must have one shape"):
        sliced_wasserstein(torch.zeros(3, 2), torch.zeros(4, 2))


# Patches.


def test_a_patch_depends_on_its_number_alone() -> None:
    images = noise(3)
    whole, part = cut(images, [4, 5, 6], 10, 0, "all"), cut(images[1:2], [5], 10, 0, "all")
    assert torch.equal(whole.fine[1], part.fine[0]) and torch.equal(whole.coarse[1], part.coarse[0])
    assert whole.fine.shape == (3, sharpness.MOST, 147)
    assert not torch.equal(cut(images[1:2], [5], 10, 1, "all").fine, part.fine)


def test_patches_are_parts_of_the_level() -> None:
    images = noise(1)
    found = cut(images, [0], 1000, 0, "all").fine[0]  # [64, 147]
    every = finest_level(images).unfold(2, 7, 1).unfold(3, 7, 1)[0].flatten(1, 2).transpose(0, 1).flatten(1)
    assert torch.cdist(found, every).amin(1).max() < 1e-2  # cdist rounds like the root of float32's precision


def test_the_number_of_patches() -> None:
    found = [per_picture(sharpness.FINE, count) for count in (2, 500, 1000, 2000, 100_000)]
    assert found == [128, 128, 64, 32, 1]


def test_patches_of_the_face() -> None:
    rows, columns = starts(64, "face").nonzero(as_tuple=True)
    assert bool((region.inside(64)[rows + 3, columns + 3] > 0).all())
    assert len(rows) == int(region.inside(64).sum()) and int(starts(64, "all").sum()) == 58 * 58


def test_small_pictures() -> None:
    with pytest.raises(ValueError, match="pictures are 13 x 13: sharpness needs at least 14 x 14"):
        cut(noise(1, 13), [0], 1, 0, "all")
    assert cut(noise(1, 14), [0], 1, 0, "face").coarse.shape == (1, 128, 147)


# Whole sets.


def squares(count: int, seed: int) -> torch.Tensor:
    """Return pictures of 32 x 32: a white square on black, anywhere."""
    numbers = torch.Generator().manual_seed(seed)
    images = torch.full((count, 3, 32, 32), -1.0)
    for image, (row, column) in zip(images, torch.randint(20, (count, 2), generator=numbers).tolist(), strict=True):
        image[:, row : row + 12, column : column + 12] = 1
    return images


@pytest.mark.lengthy
def test_what_each_distance_sees() -> None:
    """Blur and noise must raise the distance, and a mixture of two pictures the nearest distance."""
    real, other, third = squares(60, 0).split(20)

    def distances(images: torch.Tensor) -> tuple[float, float]:
        return compare(*(cut(each, range(20), 20, 0, "all") for each in (images, real)))

    blurred = F.avg_pool2d(F.pad(other, (1, 1, 1, 1), mode="replicate"), 3, 1)
    noisy = other + 0.2 * noise(20, 32)
    plain, blur, grain, ghost = (distances(each) for each in (other, blurred, noisy, (other + third) / 2))
    # Only the order is tested; docs/measuring.md has the calibration on faces.
    assert min(blur[0], grain[0]) > 1.5 * plain[0]
    assert ghost[1] > 1.5 * max(plain[1], blur[1], grain[1])
    assert distances(real)[0] == 0 and distances(real)[1] < 1  # cdist rounds like the root of float32's precision


@pytest.mark.lengthy
def test_the_floor() -> None:
    """Other real pictures are the yardstick. If there are too few, halves of the set are compared."""
    images = torch.from_numpy(to_bytes(squares(40, 0))).permute(0, 3, 1, 2)
    read = []

    def image(number: int) -> torch.Tensor:
        read.append(number)
        return images[number]

    enough = RealPatches(image, 20, 40)
    made = {place: cut(from_bytes(images[20:]), range(20, 40), 20, 0, place) for place in ("all", "face")}
    score = enough.score(made)["all"]
    assert (score.distance, score.nearest) == (score.real_distance, score.real_nearest)  # the same pictures
    assert sorted(read) == list(range(40))
    read.clear()
    few = RealPatches(image, 40, 40)
    assert few.floor["all"][0] > 0 and sorted(read) == list(range(40))


def test_a_set_of_its_own_pictures() -> None:
    images = torch.from_numpy(to_bytes(squares(6, 0))).permute(0, 3, 1, 2)
    found = sharpness.sharpness(from_bytes(images), RealPatches(images.__getitem__, 6, 6))
    assert set(found) == {"all", "face"} and found["face"].distance == 0


def test_patches_are_named() -> None:
    assert Patches._fields == ("fine", "coarse")
