"""Tests of convolutions with resampling and modulation against official values and against their definitions."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from goldens import OpCase, op_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from dreamportrait.eg3d.conv import conv2d_resample, minibatch_std, modulated_conv2d, normalize_2nd_moment
from eg3d_ops import downsample2d, upsample2d

# Sums of up to 150 float32 products of size 1 in another order than the reference's differ by a few times 1e-6.
VALUE = {"rtol": 1e-5, "atol": 1e-5}
# Gradients of weights also sum over every pixel: values of size 10 to 100, whose round-off is larger.
GRADIENT = {"rtol": 1e-5, "atol": 1e-4}
# The same sums in float64, where round-off is 1e-16 of values up to 1000.
EXACT = {"rtol": 1e-10, "atol": 1e-10}


# ----- Official numbers -----------------------------------------------------------------------------------


def check_golden(case: OpCase, op: Callable[..., Tensor], names: Sequence[str]) -> None:
    """Check the value, its gradients with respect to `names`, and the gradients of those gradients."""
    golden = case.tensors
    inputs = {name: golden[name].clone().requires_grad_() for name in names}
    y = op(**inputs)
    assert_close(y, golden["y"], **VALUE)
    dy = golden["dy"].clone().requires_grad_()
    first = torch.autograd.grad(y, list(inputs.values()), dy, create_graph=True)
    for name, gradient in zip(names, first, strict=True):
        assert_close(gradient, golden[f"d{name}"], **GRADIENT)

    cotangents = [golden[key] for key in ("v", "u") if key in golden]  # of dx and, if given, dw
    total = sum((gradient * v).sum() for gradient, v in zip(first, cotangents, strict=False))
    targets = {**inputs, "dy": dy}
    second = torch.autograd.grad(total, list(targets.values()), allow_unused=True)
    for (name, target), gradient in zip(targets.items(), second, strict=True):
        gradient = torch.zeros_like(target) if gradient is None else gradient
        assert_close(gradient, golden[f"dd_{name}"], **GRADIENT)


@pytest.mark.parametrize("case", op_cases("conv2d_resample"), ids=str)
def test_conv2d_resample_golden(case: OpCase) -> None:
    f = case.tensors.get("f")
    check_golden(case, lambda x, w: conv2d_resample(x, w, f, **case.args), ["x", "w"])


@pytest.mark.parametrize("case", op_cases("modulated_conv2d"), ids=str)
def test_modulated_conv2d_golden(case: OpCase) -> None:
    args: dict[str, Any] = {
        **case.args,
        "noise": case.tensors.get("noise"),
        "resample_filter": case.tensors.get("f"),
    }
    check_golden(case, lambda **inputs: modulated_conv2d(**inputs, **args), ["x", "weight", "styles"])


@pytest.mark.parametrize("case", op_cases("minibatch_std"), ids=str)
def test_minibatch_std_golden(case: OpCase) -> None:
    check_golden(case, lambda x: minibatch_std(x, **case.args), ["x"])


@pytest.mark.parametrize("case", op_cases("normalize_2nd_moment"), ids=str)
def test_normalize_2nd_moment_golden(case: OpCase) -> None:
    check_golden(case, lambda x: normalize_2nd_moment(x, **case.args), ["x"])


# ----- Definitions ----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    factors=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    kernel=st.sampled_from([(1, 1), (1, 3), (3, 3), (5, 1)]),
    taps=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    groups=st.integers(1, 2),
    flips=st.tuples(st.booleans(), st.booleans()),
    seed=st.integers(0, 2**31),
)
@pytest.mark.lengthy
def test_conv2d_resample_is_upsample_convolve_downsample(
    factors: tuple[int, int],
    kernel: tuple[int, int],
    taps: tuple[int, int],
    groups: int,
    flips: tuple[bool, bool],
    seed: int,
) -> None:
    """conv2d_resample equals the three steps in turn on an image with a wide border of zeros."""
    (up, down), (kh, kw), (flip_weight, flip_filter) = factors, kernel, flips
    torch.manual_seed(seed)
    x = torch.randn(2, 4, 6, 12, dtype=torch.float64)  # sizes and border are multiples of every `down`
    w = torch.randn(2, 4 // groups, kh, kw, dtype=torch.float64)
    f = torch.rand(taps)
    border = 12

    y = F.pad(x, [border] * 4)
    y = upsample2d(y, f, up, flip_filter=flip_filter) if up > 1 else y
    y = F.conv2d(y, w if flip_weight else w.flip([2, 3]), groups=groups, padding=(kh // 2, kw // 2))
    y = downsample2d(y, f, down, flip_filter=flip_filter) if down > 1 else y
    cut = border * up // down
    expected = y[:, :, cut:-cut, cut:-cut]

    padding = [kw // 2, kw // 2, kh // 2, kh // 2]
    got = conv2d_resample(x, w, f, up, down, padding, groups, flip_weight, flip_filter)
    assert_close(got, expected, **EXACT)


def test_conv2d_resample_by_hand() -> None:
    x, w = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[1.0, 10.0, 100.0]]]])
    assert conv2d_resample(x, w, padding=[1, 1, 0, 0]).tolist() == [[[[210.0, 21.0]]]]
    assert conv2d_resample(x, w, padding=[1, 1, 0, 0], flip_weight=False).tolist() == [[[[12.0, 120.0]]]]
    # Upsampling with a filter of one tap gives 0 1 0 2 in the lower row, times 4 to compensate for the zeros.
    up = conv2d_resample(x, w, torch.ones(1, 1), up=2, padding=[1, 1, 0, 0])
    assert up.tolist() == [[[[0.0, 0.0, 0.0, 0.0], [400.0, 40.0, 804.0, 80.0]]]]


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2)])
def test_fused_and_unfused_modulation_agree(up: int, down: int, demodulate: bool) -> None:
    torch.manual_seed(0)
    x, weight, styles = (torch.randn(*shape, dtype=torch.float64) for shape in [(3, 4, 6, 6), (5, 4, 3, 3), (3, 4)])
    f = torch.tensor([[1.0, 3.0], [2.0, 1.0]])
    fused, unfused = (
        modulated_conv2d(x, weight, styles, None, up, down, 1, f, demodulate, fused_modconv=fused)
        for fused in (True, False)
    )
    assert_close(fused, unfused, **EXACT)


def test_demodulation_gives_unit_norm() -> None:
    """White noise through a demodulated convolution keeps its variance, whatever the styles."""
    torch.manual_seed(0)
    x = torch.randn(2, 8, 64, 64)
    y = modulated_conv2d(x, 100 * torch.randn(4, 8, 3, 3), torch.tensor([[1e-3], [50.0]]).expand(2, 8))
    # 62 * 62 neighbouring values, correlated over 3 x 3: the standard error of their std is about 5 %.
    assert_close(y.std(dim=(2, 3)), torch.ones(2, 4), rtol=0.15, atol=0)


@pytest.mark.parametrize("fused", [True, False])
def test_half_precision_does_not_overflow(fused: bool) -> None:
    torch.manual_seed(0)
    x, weight, styles = torch.randn(2, 64, 6, 6), 3000 * torch.randn(4, 64, 3, 3), 3000 * torch.randn(2, 64)
    expected = modulated_conv2d(x, weight, styles, padding=1)
    got = modulated_conv2d(x.half(), weight, styles, padding=1, fused_modconv=fused)
    assert got.dtype == torch.float16
    # 576 products of values with 11-bit mantissas, results of size 1: errors add up like noise to 24 * 2^-12.
    assert_close(got.float(), expected, rtol=0, atol=24 / 2**12)


def test_half_precision_of_zeros() -> None:
    """A channel or a style of zeros gives zeros, not the NaN of 0 / 0."""
    x, weight, styles = torch.ones(2, 4, 3, 3), torch.ones(2, 4, 1, 1), torch.ones(2, 4)
    weight[0], styles[0] = 0, 0
    y = modulated_conv2d(x.half(), weight, styles)
    # Sample 1, channel 1 is the sum of 4 ones divided by their norm, 2.
    assert y[:, :, 0, 0].tolist() == [[0.0, 0.0], [0.0, 2.0]]


def test_second_gradients_of_upsampling_convolution() -> None:
    torch.manual_seed(0)
    x, w = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in [(1, 1, 2, 3), (1, 1, 3, 3)])
    f = torch.tensor([[1.0, 2.0], [0.5, 1.0]])
    assert torch.autograd.gradgradcheck(lambda x, w: conv2d_resample(x, w, f, up=2, padding=1), (x, w))


def test_minibatch_std_groups() -> None:
    """Samples 0 and 2 differ by 2 everywhere, 1 and 3 not at all: biased deviations 1 and 0."""
    x = torch.stack([torch.full((1, 2, 2), value) for value in (0.0, 5.0, 2.0, 5.0)])
    appended = minibatch_std(x, group_size=2)[:, 1]
    expected = torch.tensor([1.0, 0.0, 1.0, 0.0])[:, None, None].expand(4, 2, 2)
    assert_close(appended, expected, rtol=0, atol=2e-4)  # the 1e-8 under the root is 1e-4 of deviation


def test_normalize_2nd_moment_by_hand() -> None:
    assert_close(normalize_2nd_moment(torch.tensor([[3.0, 4.0]])), torch.tensor([[3.0, 4.0]]) / 12.5**0.5)
    assert normalize_2nd_moment(torch.zeros(1, 3)).tolist() == [[0.0, 0.0, 0.0]]


# ----- Bad arguments --------------------------------------------------------------------------------------


X, W, S = torch.zeros(2, 4, 5, 5), torch.zeros(6, 4, 3, 3), torch.zeros(2, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: conv2d_resample(X[0], W), ValueError, r"x must have rank 4 .* got shape \[4, 5, 5\]"),
        (lambda: conv2d_resample(X, W.int()), TypeError, r"w must be floating point, got torch.int32"),
        (lambda: conv2d_resample(X, W, groups=2), ValueError, r"x of shape \[2, 4, 5, 5\] must have .* 4 \* 2"),
        (lambda: conv2d_resample(X, W[:5, :2], groups=2), ValueError, r"groups=2: must divide the 5 output"),
        (lambda: conv2d_resample(X, W, up=0), ValueError, r"up must be at least 1, got 0"),
        (lambda: conv2d_resample(X, W, down=1.5), TypeError, r"down must be an int, got 1.5"),
        (lambda: conv2d_resample(X, W, padding=[1, 2, 3]), ValueError, r"padding must be .* got \[1, 2, 3\]"),
        (lambda: modulated_conv2d(X, W, S[:1]), ValueError, r"styles must have shape \[2, 4\] .* got \[1, 4\]"),
        (lambda: modulated_conv2d(X, W[:, :3], S[:, :3]), ValueError, r"weight must have shape \[6, 4, 3, 3\]"),
        (lambda: minibatch_std(X.expand(2, 4, 5, 5).repeat(3, 1, 1, 1)), ValueError, r"group_size=4: .* batch of 6"),
        (lambda: minibatch_std(X, num_channels=3), ValueError, r"num_channels=3: must divide the 4"),
    ],
)
def test_bad_arguments(call: Callable[[], Tensor], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
