"""Tests of modulated_lrelu: by hand, compiled against the reference, rejected arguments."""

import math
from collections.abc import Callable

import pytest
import torch
from op_checks import normal
from torch import Tensor

from eg3d_ops import modulated_lrelu

Arguments = dict[str, Tensor | float | None]


def arguments(n: int = 2, c: int = 5, h: int = 3, w: int = 7, dtype: torch.dtype = torch.float32) -> Arguments:
    return {
        "x": normal(n, c, h, w, dtype=dtype),
        "scale": normal(n, c, seed=1, dtype=dtype),
        "b": normal(c, seed=2, dtype=dtype),
        "noise": normal(h, w, seed=3, dtype=dtype),
        "next_scale": normal(n, c, seed=4, dtype=dtype),
        "clamp": 1.2,
    }


def test_by_hand(impl: str) -> None:
    """Two pixels of one channel: 3 * 2 + 1 + 1 = 8, times 0.5, at most 3, times 10; -3 * 2 + 1 = -5, times 0.2."""
    x, one = torch.tensor([[[[3.0, -3.0]]]]), torch.ones(1, 1)
    noise = torch.tensor([[1.0, 0.0]])
    y = modulated_lrelu(x, 2 * one, one[0], noise, 10 * one, alpha=0.2, gain=0.5, clamp=3.0, impl=impl)
    assert y.flatten().tolist() == [30.0, -5.0]


SIZES = [(2, 5, 3, 7), (1, 64, 9, 11), (3, 130, 2, 2), (1, 1, 1, 1), (2, 33, 64, 65), (0, 3, 2, 2), (1, 3, 0, 2)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_like_twin(size: tuple[int, ...], layout: torch.memory_format, dtype: torch.dtype, isa: str) -> None:
    given = arguments(*size, dtype=dtype)
    given["x"] = given["x"].to(memory_format=layout)
    y = modulated_lrelu(**given, impl="compiled")
    assert y.dtype == dtype and y.stride() == given["x"].stride()
    exact = {k: v.double() if isinstance(v, Tensor) else v for k, v in given.items()}
    # Five operations of numbers of size 1 to 5, each rounded once.
    tolerance = 1e-14 if dtype == torch.float64 else 2e-6
    torch.testing.assert_close(y.double(), modulated_lrelu(**exact, impl="reference"), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("change", ["no noise", "own noise", "no next", "no clamp", "expanded", "strided"])
def test_optional_parts(change: str, compiled_cpu: object) -> None:
    given = arguments(3, 20, 4, 6)
    x = given["x"]
    assert isinstance(x, Tensor)
    given |= {
        "no noise": {"noise": None},
        "own noise": {"noise": normal(3, 1, 4, 6, seed=9)},
        "no next": {"next_scale": None},
        "no clamp": {"clamp": None},
        "expanded": {"scale": normal(1, 20).expand(3, 20), "x": x[:1].expand(3, -1, -1, -1)},
        "strided": {"x": torch.cat([x, x], 3)[..., ::2], "b": normal(40)[::2]},
    }[change]
    y, twin = (modulated_lrelu(**given, impl=impl) for impl in ("compiled", "reference"))
    torch.testing.assert_close(y, twin, rtol=2e-6, atol=2e-6)


def test_twin_is_differentiable(compiled_cpu: object) -> None:
    given = arguments(2, 3, 2, 2, dtype=torch.float64)
    names = ["x", "scale", "b", "noise", "next_scale"]
    leaves = [given[name].requires_grad_() for name in names]

    def function(*tensors: Tensor) -> Tensor:
        return modulated_lrelu(**{**given, **dict(zip(names, tensors, strict=True))}, impl="reference")

    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)
    with pytest.raises(NotImplementedError, match="for inference only; use impl='reference' for gradients"):
        modulated_lrelu(**given, impl="compiled").sum().backward()


def test_nan_is_not_hidden(impl: str) -> None:
    given = arguments()
    given["x"][0, 1, 2, 3] = math.nan
    found = modulated_lrelu(**given, impl=impl).isnan()
    assert found.nonzero().tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    """The other arguments stay float32; on a CPU the reference runs."""
    given = arguments()
    given["x"] = given["x"].to(dtype)
    y = modulated_lrelu(**given)
    assert y.dtype == dtype
    assert y.equal(modulated_lrelu(**{**given, "x": given["x"].float()}, impl="reference").to(dtype))


@pytest.mark.lengthy
def test_opcheck(compiled_cpu: object) -> None:
    x, scale, b = normal(2, 3, 4, 5), normal(2, 3), normal(3)
    torch.library.opcheck(torch.ops.eg3d_ops.modulated_lrelu.default, (x, scale, b, None, scale, 0.2, 1.5, 1.0))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.ones(3, 3)}, ValueError, r"x must have rank 4 \[N, C, H, W\]"),
        ({"scale": torch.ones(2, 4)}, ValueError, r"scale must have shape \[2, 5\] .* got \[2, 4\]"),
        ({"b": torch.ones(4)}, ValueError, r"b must have shape \[5\]"),
        ({"noise": torch.ones(2, 7)}, ValueError, r"noise must have shape \[3, 7\]"),
        ({"noise": torch.ones(1, 1, 3, 7)}, ValueError, r"noise must have shape \[2, 1, 3, 7\]"),
        ({"next_scale": torch.ones(5)}, ValueError, r"next_scale must have shape \[2, 5\]"),
        ({"clamp": -1.0}, ValueError, "clamp must be at least 0, got -1.0; None means no clamp"),
        ({"gain": math.inf}, ValueError, "gain must be finite, got inf"),
        ({"b": torch.ones(5, dtype=torch.int64)}, TypeError, "b must be floating point"),
        ({"scale": torch.ones(2, 5, device="meta")}, ValueError, "scale is on meta but x is on cpu"),
    ],
)
def test_bad_arguments(change: Arguments, error: type[Exception], message: str) -> None:
    call: Callable[..., Tensor] = modulated_lrelu
    with pytest.raises(error, match=message):
        call(**{**arguments(), **change})
