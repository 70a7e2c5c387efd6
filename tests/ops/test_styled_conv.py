"""Tests of styled_conv3x3: Winograd's algorithm against a direct convolution, and rejected arguments."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from op_checks import normal
from torch import Tensor

from eg3d_ops import modulated_lrelu, styled_conv3x3, winograd_weight


def arguments(n: int, ci: int, co: int, h: int, w: int, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    return {
        "x": normal(n, ci, h, w, dtype=dtype).to(memory_format=torch.channels_last),
        "weight": normal(co, ci, 3, 3, seed=1, dtype=dtype) / (9 * ci) ** 0.5,
        "scale": normal(n, co, seed=2, dtype=dtype),
        "b": normal(co, seed=3, dtype=dtype),
        "noise": normal(h, w, seed=4, dtype=dtype),
        "next_scale": normal(n, co, seed=5, dtype=dtype),
        "clamp": 2.0,
    }


def winograd(given: dict[str, Any], **options: Any) -> Tensor:
    rest = {key: value for key, value in given.items() if key not in ("x", "weight")}
    return styled_conv3x3(given["x"], winograd_weight(given["weight"]), **rest, **options)


def direct(given: dict[str, Any]) -> Tensor:
    """The definition, in float64."""
    given = {k: v.double() if isinstance(v, Tensor) else v for k, v in given.items()}
    y = F.conv2d(given.pop("x"), given.pop("weight"), padding=1)
    return modulated_lrelu(y, **given, impl="reference")


def test_by_hand(impl: str) -> None:
    """A weight with 1 in the middle, 10 to the right and 100 below, in channel 0 of 16; alpha 1, so no activation."""
    x, weight = torch.zeros(1, 16, 3, 3), torch.zeros(16, 16, 3, 3)
    x[0, 0] = torch.arange(1.0, 10.0).reshape(3, 3)
    weight[0, 0] = torch.tensor([[0.0, 0, 0], [0, 1, 10], [0, 100, 0]])
    y = styled_conv3x3(x, winograd_weight(weight), torch.ones(1, 16), torch.zeros(16), alpha=1.0, gain=1.0, impl=impl)
    assert y[0, 0].tolist() == [[421, 532, 603], [754, 865, 906], [87, 98, 9]]
    assert not y[0, 1:].any()


SIZES = [  # N, Ci, Co, H, W
    (1, 16, 16, 1, 1),
    (2, 16, 48, 5, 4),
    (1, 32, 80, 7, 13),
    (3, 144, 64, 6, 6),  # more channels than one product takes
    (1, 64, 256, 33, 31),
    (1, 16, 16, 64, 64),
    (0, 16, 16, 4, 4),
]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_like_direct_convolution(size: tuple[int, ...], isa: str) -> None:
    given = arguments(*size)
    y = winograd(given, impl="compiled")
    assert y.shape == (size[0], *size[2:]) and y.is_contiguous(memory_format=torch.channels_last)
    # Sums of up to 1296 products, whose size is 1 together: 1e-6 to 4e-6 measured. Any wrong formula is off by 0.1.
    torch.testing.assert_close(y.double(), direct(given), rtol=0, atol=2e-5)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_twin_is_a_convolution(size: tuple[int, ...]) -> None:
    given = arguments(*size, dtype=torch.float64)
    torch.testing.assert_close(winograd(given), direct(given), rtol=0, atol=1e-12)


@pytest.mark.parametrize("change", ["no noise", "own noise", "no next", "no clamp", "contiguous", "expanded"])
def test_optional_parts(change: str, compiled_cpu: object) -> None:
    given = arguments(2, 16, 32, 6, 8)
    given |= {
        "no noise": {"noise": None},
        "own noise": {"noise": normal(2, 1, 6, 8, seed=9)},
        "no next": {"next_scale": None},
        "no clamp": {"clamp": None},
        "contiguous": {"x": given["x"].contiguous()},
        "expanded": {"x": given["x"][:1].expand(2, -1, -1, -1), "scale": normal(1, 32).expand(2, 32)},
    }[change]
    torch.testing.assert_close(winograd(given, impl="compiled").double(), direct(given), rtol=0, atol=2e-5)


def test_result_does_not_depend_on_threads(compiled_cpu: object) -> None:
    given = arguments(1, 32, 64, 40, 38)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(winograd(given, impl="compiled"))
    finally:
        torch.set_num_threads(threads)
    assert all(results[0].equal(other) for other in results[1:])


def test_nan_stays_in_the_tiles_that_read_it(impl: str) -> None:
    """Tiles share their inputs' products, so a NaN spreads over the tiles around it, but no further."""
    given = arguments(1, 16, 16, 12, 12)
    given["x"][0, 3, 5, 5] = torch.nan
    found = winograd(given, impl=impl).isnan()
    assert found[:, :, 4:7, 4:7].all()
    assert not found[:, :, :4].any() and not found[:, :, 8:].any()
    assert not found[..., :4].any() and not found[..., 8:].any()


def test_no_gradients(compiled_cpu: object) -> None:
    given = arguments(1, 16, 16, 4, 4)
    given["scale"].requires_grad_()
    with pytest.raises(NotImplementedError, match="for inference only"):
        winograd(given, impl="compiled").sum().backward()
    winograd(given, impl="reference").sum().backward()
    assert given["scale"].grad.any()


@pytest.mark.lengthy
def test_opcheck(compiled_cpu: object) -> None:
    given = arguments(2, 16, 16, 4, 6)
    inputs = (given["x"], winograd_weight(given["weight"]), given["scale"], given["b"], None, None, 0.2, 1.5, 1.0)
    torch.library.opcheck(torch.ops.eg3d_ops.styled_conv3x3.default, inputs)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": normal(1, 16, 4)}, ValueError, "x must have rank 4"),
        ({"weight": normal(16, 16, 1, 1)}, ValueError, r"weight must have shape \[16, 16, 3, 3\]"),
        ({"weight": normal(16, 32, 3, 3)}, ValueError, r"u must have shape \[1, 16, 16, 64\]"),
        ({"b": normal(65)}, ValueError, r"u must have shape \[2, 16, 16, 64\]"),
        ({"scale": normal(2, 16)}, ValueError, r"scale must have shape \[1, 16\]"),
        ({"clamp": -2}, ValueError, "clamp must be at least 0, got -2"),
    ],
)
def test_bad_arguments(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        winograd(arguments(1, 16, 16, 4, 4) | change)


@pytest.mark.parametrize(
    ("size", "dtype", "message"),
    [
        ((1, 15, 16, 4, 4), torch.float32, "takes multiples of 16 channels, got 15 and 16"),
        ((1, 16, 24, 4, 4), torch.float32, "takes multiples of 16 channels, got 16 and 24"),
        ((1, 16, 16, 4, 4), torch.float64, "takes float32 on a CPU, got torch.float64 on cpu"),
    ],
)
def test_beyond_the_compiled_op(size: tuple[int, ...], dtype: torch.dtype, message: str, compiled_cpu: object) -> None:
    given = arguments(*size, dtype=dtype)
    with pytest.raises(ValueError, match=message):
        winograd(given, impl="compiled")
    torch.testing.assert_close(winograd(given).double(), direct(given), rtol=0, atol=2e-5)
