"""Tests of upfirdn2d: official values, definition, compiled against reference, derivatives, rejected arguments."""

import math

import pytest
import torch
from goldens import op_cases
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from op_checks import (
    BLUR,
    IMPLS,
    NETWORK,
    SKEW,
    assert_derivatives_close,
    derivatives,
    normal,
    second_derivatives,
)

from eg3d_ops import _backend
from eg3d_ops.filters import setup_filter
from eg3d_ops.upfirdn2d import known_finite, remember_finite, upfirdn2d

# Relative to the largest value: float32 sums of up to 25 products in another order.
CLOSE = 3e-6


# ----- Official values and the definition -----------------------------------------------------------------


@pytest.mark.parametrize("case", op_cases("upfirdn2d"), ids=str)
def test_golden(case, impl):
    t = case.tensors
    x, dy = t["x"].clone().requires_grad_(), t["dy"].clone().requires_grad_()
    y = upfirdn2d(x, t.get("f"), **case.args, impl=impl)
    first = torch.autograd.grad(y, [x], dy, create_graph=True)
    second = second_derivatives([x, dy], first, [t["v"]])
    actual = dict(zip(("y", "dx", "dd_x", "dd_dy"), [d.detach() for d in (y, *first, *second)], strict=True))
    assert_derivatives_close(actual, {key: t[key] for key in actual}, CLOSE)


def test_by_hand(impl):
    x = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    f = torch.tensor([[1.0, 10.0]])

    def row(**options):
        return upfirdn2d(x, f, impl=impl, **options).flatten().tolist()

    assert row() == [12, 23]  # convolution: the filter is flipped
    assert row(flip_filter=True) == [21, 32]
    assert row(padding=[1, 0, 0, 0]) == [1, 12, 23]
    assert row(padding=[1, 1, 0, 0], down=[2, 1]) == [1, 23]
    assert row(padding=[1, 0, 0, 0], up=[2, 1]) == [1, 10, 2, 20, 3, 30]
    assert row(padding=[-1, 1, 0, 0], gain=-2) == [-46, -60]
    assert upfirdn2d(x, None, up=2, impl=impl).tolist() == [[[[1, 0, 2, 0, 3, 0], [0] * 6]]]


def definition(x, f, up, down, padding, flip_filter, gain):
    """Compute upfirdn2d pixel by pixel in float64, directly from its definition."""
    f2 = f.double() if f.ndim == 2 else torch.outer(f.double(), f.double())
    f2 = f2 if flip_filter else f2.flip(0, 1)
    (ux, uy), (dx, dy), (x0, x1, y0, y1) = up, down, padding
    n, c, h, w = x.shape
    fh, fw = f2.shape
    canvas = torch.zeros(n, c, h * uy + y0 + y1, w * ux + x0 + x1, dtype=torch.float64)
    for i in range(h):
        for j in range(w):
            row, column = i * uy + y0, j * ux + x0
            if 0 <= row < canvas.shape[2] and 0 <= column < canvas.shape[3]:
                canvas[:, :, row, column] = x[:, :, i, j].double()
    rows = range(0, canvas.shape[2] - fh + 1, dy)
    columns = range(0, canvas.shape[3] - fw + 1, dx)
    lines = [[(canvas[:, :, i : i + fh, j : j + fw] * f2).sum((2, 3)) for j in columns] for i in rows]
    return gain * torch.stack([torch.stack(line, -1) for line in lines], -2)


factor = st.integers(1, 4)
arguments = st.fixed_dictionaries(
    {
        "up": st.tuples(factor, factor),
        "down": st.tuples(factor, factor),
        "padding": st.tuples(*[st.integers(-4, 7)] * 4),
        "flip_filter": st.booleans(),
        "gain": st.sampled_from([1.0, 4.0, -0.3]),
    }
)
filters = st.one_of(
    st.integers(1, 12).map(lambda n: normal(n, seed=n)),
    st.tuples(st.integers(1, 5), st.integers(1, 6)).map(lambda s: normal(*s, seed=7)),
    st.tuples(st.integers(1, 5), st.integers(1, 6)).map(lambda s: torch.outer(normal(s[0]), normal(s[1], seed=1))),
)
sizes = st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 9), st.integers(1, 40))


def accepted(x, f, arguments):
    """Return True if the op accepts the arguments. Hypothesis also proposes invalid sizes, which other tests cover."""
    try:
        upfirdn2d(x, f, **arguments, impl="reference")
    except ValueError:
        return False
    return True


@settings(max_examples=80, deadline=None, derandomize=True)
@given(arguments, filters, sizes)
@pytest.mark.lengthy
def test_twin_does_as_defined(arguments, f, size):
    x = normal(*size, dtype=torch.float64)
    assume(accepted(x, f, arguments))
    y = upfirdn2d(x, f, **arguments, impl="reference")
    expected = definition(x, f, **arguments)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)  # float64 sums of up to 144 products


# ----- Compiled against reference -------------------------------------------------------------------------


def both(x, f, **options):
    def run(impl):
        return derivatives(lambda x: upfirdn2d(x, f, impl=impl, **options), [x])

    return run("compiled"), run("reference")


def assert_like_twin(x, f, options, tolerance=CLOSE):
    """Compare relative to the sum of |f|, because the terms of random filters may cancel to nearly zero."""
    compiled, twin = both(x, f, **options)
    assert compiled.keys() == twin.keys()
    scale = float(f.abs().sum()) ** (2 if f.ndim == 1 else 1) * abs(options.get("gain", 1)) * 4  # |x| < 4 or so
    for name in compiled:
        assert compiled[name].shape == twin[name].shape
        assert (compiled[name] - twin[name]).abs().max() <= tolerance * scale, name


@settings(max_examples=200, deadline=None, derandomize=True)
@given(arguments, filters, sizes, st.sampled_from(_backend.CPU_ISAS), st.booleans(), st.booleans())
@pytest.mark.lengthy
def test_compiled_like_twin(compiled_cpu, arguments, f, size, isa, channels_last, double):
    try:
        _backend.set_cpu_isa(isa)
    except ValueError:
        assume(False)
    x = normal(*size, dtype=torch.float64 if double else torch.float32)
    assume(accepted(x, f, arguments))
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    assert_like_twin(x, f, arguments, 1e-14 if double else CLOSE)


@pytest.mark.parametrize("use", NETWORK)
@pytest.mark.parametrize("channels", [1, 3, 17])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_widths_around_the_vector_length(use, channels, layout, isa):
    for width in (4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 65):
        x = normal(1, channels, 6, width).to(memory_format=layout)
        assert_like_twin(x, BLUR, NETWORK[use])


LAYOUTS = {
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "every second column": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "expanded": lambda x: x[:, :1].expand_as(x),
    "slice of channels": lambda x: torch.cat([x, x], 1)[:, 2:5],
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "channels last, one of three": lambda x: x.to(memory_format=torch.channels_last)[:, 1:2],
    "channels last, one channel": lambda x: x[:, :1].to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, compiled_cpu):
    x = LAYOUTS[layout](normal(2, 3, 9, 11))
    assert_like_twin(x, BLUR, {"padding": 1})
    y = upfirdn2d(x, BLUR, padding=1, impl="compiled")
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    assert y.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def test_empty_batch(impl):
    x = torch.zeros(0, 3, 8, 8, requires_grad=True)
    y = upfirdn2d(x, BLUR, up=2, padding=2, impl=impl)
    assert y.shape == (0, 3, 17, 17)
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert dx.shape == x.shape


def test_large_and_many_images_on_any_number_of_threads(compiled_cpu):
    before = torch.get_num_threads()
    try:
        for size in ((1, 1, 200, 300), (1, 300, 5, 5), (3, 1, 7, 3)):
            x = normal(*size)
            results = []
            for threads in (1, 2, 3, 8):
                torch.set_num_threads(threads)
                results.append(upfirdn2d(x, BLUR, padding=2, impl="compiled"))
            assert all(torch.equal(results[0], r) for r in results[1:])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("change", [1e-6, 1e-4])
def test_nearly_a_product(change, compiled_cpu):
    """A filter that is a product except for one tap is applied unchanged."""
    f = BLUR.clone()
    f[0, 1] *= 1 + change
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 4, 4] = 1
    y = upfirdn2d(x, f, padding=3, impl="compiled", flip_filter=True)
    # The response to one pixel is the flipped filter, up to 2 roundings, or 4 if it was accepted as a product.
    torch.testing.assert_close(y[0, 0, 4:8, 4:8].flip(0, 1), f, rtol=5e-7, atol=0)


def test_filter_without_a_largest_tap(impl):
    x = normal(1, 2, 5, 5)
    assert not upfirdn2d(x, torch.zeros(3, 3), padding=1, impl=impl).any()


# ----- Derivatives ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "f", [BLUR, SKEW, setup_filter([1.0, 2.0, -1.0], separable=True)], ids=["blur", "skew", "taps"]
)
@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {"up": 2, "padding": [2, 1, 0, 3], "gain": 4},
        {"down": [2, 3], "padding": 3, "flip_filter": True},
        {"up": [3, 2], "down": 2, "padding": [-1, 4, 5, -2]},
    ],
    ids=str,
)
@pytest.mark.lengthy
def test_gradcheck(f, options, impl):
    x = normal(1, 2, 3, 4, dtype=torch.float64).requires_grad_()  # small: each number costs a row of a Jacobian

    def function(x):
        return upfirdn2d(x, f, **options, impl=impl)

    assert torch.autograd.gradcheck(function, (x,))
    assert torch.autograd.gradgradcheck(function, (x,))


def test_any_order(impl):
    """Third derivatives work. The op is linear, so its results are raised to powers to give nonzero derivatives."""
    x = normal(1, 1, 4, 4, dtype=torch.float64).requires_grad_()
    d = upfirdn2d(x, SKEW, padding=2, impl=impl).pow(4).sum()
    for _ in range(3):
        (d,) = torch.autograd.grad(d, x, create_graph=True)
        d = d.square().sum()
    assert d > 0


# ----- Special values, types, purity ----------------------------------------------------------------------


def test_nan_and_infinity_go_as_far_as_the_filter(isa):
    x = normal(2, 3, 9, 40)
    x[0, 1, 4, 20], x[1, 2, 0, 39] = math.nan, math.inf
    for use in NETWORK.values():
        compiled, twin = (upfirdn2d(x, BLUR, **use, impl=i) for i in IMPLS)
        assert torch.equal(compiled.isnan(), twin.isnan())
        assert torch.equal(compiled.isinf(), twin.isinf())
        assert 0 < (~compiled.isfinite()).sum() < compiled.numel() / 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_cpu_is_left_to_the_twin(dtype, compiled_cpu):
    x = normal(1, 2, 6, 6, dtype=dtype)
    y = upfirdn2d(x, BLUR, padding=1)
    assert y.dtype == dtype
    assert torch.equal(y, upfirdn2d(x, BLUR, padding=1, impl="reference"))
    with pytest.raises(TypeError, match=f"x is {dtype}, but compiled upfirdn2d on cpu takes torch.float32"):
        upfirdn2d(x, BLUR, impl="compiled")


def test_autocast_changes_nothing(impl):
    x = normal(1, 2, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        inside = upfirdn2d(x, BLUR, padding=1, impl=impl)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, upfirdn2d(x, BLUR, padding=1, impl=impl))


def test_shapes_alone():
    x, f = torch.zeros(1, 2, 6, 6, device="meta"), BLUR.to("meta")
    assert upfirdn2d(x, f, up=2, padding=2, impl="reference").shape == (1, 2, 13, 13)


def test_inputs_stay_as_they_are(impl):
    x, f = normal(1, 2, 6, 6), BLUR.clone()
    derivatives(lambda x: upfirdn2d(x, f, up=2, padding=2, gain=3, impl=impl), [x])
    y = upfirdn2d(x, None, impl=impl)
    assert torch.equal(y, x)
    y.zero_()  # a new tensor, even if there was nothing to compute
    assert torch.equal(x, normal(1, 2, 6, 6))
    assert torch.equal(f, BLUR)


def test_arguments_may_be_lists_tuples_and_sizes(impl):
    x = normal(1, 1, 5, 6)
    expected = upfirdn2d(x, BLUR, up=[2, 2], padding=[1, 1, 1, 1], impl=impl)
    for up in (2, (2, 2), torch.Size([2, 2])):
        for padding in (1, (1, 1), torch.Size([1, 1, 1, 1])):
            assert torch.equal(upfirdn2d(x, BLUR, up=up, padding=padding, impl=impl), expected)


# ----- Bad arguments --------------------------------------------------------------------------------------

BAD = {
    "x no tensor": ({"x": [1.0]}, TypeError, "x must be a torch.Tensor, got list"),
    "x of rank 3": (
        {"x": torch.zeros(3, 8, 8)},
        ValueError,
        r"x must have rank 4 \[N, C, H, W\], got shape \[3, 8, 8\]",
    ),
    "integer x": ({"x": torch.zeros(1, 1, 8, 8, dtype=torch.uint8)}, TypeError, "x must be floating point"),
    "no pixel": ({"x": torch.zeros(1, 3, 0, 8)}, ValueError, "at least one channel and one pixel"),
    "no channel": ({"x": torch.zeros(1, 0, 8, 8)}, ValueError, "at least one channel and one pixel"),
    "f no tensor": ({"f": [1, 3, 3, 1]}, TypeError, "f must be a torch.Tensor, got list"),
    "f of rank 3": ({"f": torch.ones(1, 1, 4)}, ValueError, r"f must have rank 1 or 2 \[taps\] or \[fh, fw\]"),
    "f empty": ({"f": torch.ones(0)}, ValueError, "f must have at least one tap"),
    "f float64": ({"f": BLUR.double()}, TypeError, "f must be float32, got torch.float64"),
    "f nan": ({"f": torch.tensor([1.0, math.nan])}, ValueError, "f must be finite"),
    "f infinite": ({"f": torch.tensor([math.inf, -math.inf])}, ValueError, "f must be finite"),
    "f to be trained": ({"f": BLUR.clone().requires_grad_()}, ValueError, "f requires grad.*f.detach"),
    "f elsewhere": ({"f": BLUR.to("meta")}, ValueError, "f is on meta but x is on cpu"),
    "up 0": ({"up": 0}, ValueError, "up must be at least 1, got 0"),
    "up of three": ({"up": [1, 2, 3]}, ValueError, r"up must be an int or \[x, y\], got \[1, 2, 3\]"),
    "up float": ({"up": 2.0}, TypeError, r"up must be an int or \[x, y\], got 2.0"),
    "up of floats": ({"up": [2.0, 2.0]}, TypeError, "up must be an int, got 2.0"),
    "down negative": ({"down": [1, -2]}, ValueError, "down must be at least 1, got -2"),
    "padding of three": ({"padding": [1, 2, 3]}, ValueError, r"padding must be an int, \[x, y\] or \[x0, x1, y0, y1\]"),
    "padding none": ({"padding": None}, TypeError, "padding must be an int"),
    "padding float": ({"padding": [0.5, 1]}, TypeError, "padding must be an int, got 0.5"),
    "gain nan": ({"gain": math.nan}, ValueError, "gain must be finite"),
    "gain none": ({"gain": None}, TypeError, "gain must be a number"),
    "too small": ({"x": torch.zeros(1, 1, 8, 3)}, ValueError, "width 3 upsampled 1 times .* less than its 4 taps"),
    "cropped to less": (
        {"padding": [0, 0, -3, -2]},
        ValueError,
        "height 8 .* padded by -3 and -2 is less than its 4 taps",
    ),
    "cropped away": ({"padding": [-8, 20, 0, 0]}, ValueError, "crops the whole width"),
    "unknown impl": ({"impl": "cuda"}, ValueError, "impl='cuda'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(case, impl):
    wrong, error, message = BAD[case]
    good = {"x": normal(1, 2, 8, 8), "f": BLUR, "impl": impl}
    with pytest.raises(error, match=message):
        upfirdn2d(**{**good, **wrong})


def test_filter_changed_to_nan_is_noticed(impl):
    x, f = normal(1, 1, 8, 8), BLUR.clone()
    upfirdn2d(x, f, impl=impl)
    f[0, 0] = math.nan
    with pytest.raises(ValueError, match="f must be finite"):
        upfirdn2d(x, f, impl=impl)


# ----- Filters are looked into once per version -----------------------------------------------------------


def test_a_checked_filter_is_known_until_it_changes() -> None:
    """On a GPU, looking into a filter waits for the GPU, so it happens once."""
    f = torch.ones(3, 3)
    assert not known_finite(f)
    remember_finite(f)
    assert known_finite(f) and not known_finite(f.clone())
    f[0, 0] = math.nan
    assert not known_finite(f)


def test_filters_made_in_inference_mode_are_known_too() -> None:
    """They have no version; a network that was built in inference mode has sixteen of them."""
    with torch.inference_mode():
        f = torch.ones(3, 3)
        assert not known_finite(f)
        remember_finite(f)
        assert known_finite(f)
