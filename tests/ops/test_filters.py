"""Tests of setup_filter, filter2d, upsample2d and downsample2d: official values, alignment, rejected arguments."""

import math

import numpy as np
import pytest
import torch
from goldens import op_cases
from op_checks import assert_derivatives_close, normal, second_derivatives
from torch.testing import assert_close

from eg3d_ops.filters import downsample2d, filter2d, setup_filter, upsample2d

OPS = {"filter2d": filter2d, "upsample2d": upsample2d, "downsample2d": downsample2d}


# ----- setup_filter ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", op_cases("setup_filter"), ids=str)
def test_setup_filter_golden(case):
    f = setup_filter(case.raw_filter, **case.args)
    assert f.dtype == torch.float32
    assert f.shape == case.tensors["f"].shape
    assert_close(f, case.tensors["f"], rtol=3e-7, atol=0)  # a product and a quotient: up to 3 roundings


@pytest.mark.parametrize("case", [case for name in (*OPS, "upfirdn2d") for case in op_cases(name)], ids=str)
def test_setup_filter_makes_the_official_filters(case):
    if "f" not in case.tensors:
        assert case.raw_filter is None
        return
    assert_close(setup_filter(case.raw_filter, **case.setup), case.tensors["f"], rtol=3e-7, atol=0)


def test_setup_filter_by_hand():
    assert torch.equal(setup_filter([1, 3, 3, 1]), torch.outer(t := torch.tensor([1.0, 3, 3, 1]), t) / 64)
    assert setup_filter([1] * 7).shape == (7, 7)
    assert setup_filter([1] * 8).shape == (8,)
    assert setup_filter([1, 1], separable=True, gain=4).tolist() == [1, 1]
    assert setup_filter(3.0).tolist() == setup_filter(None).tolist() == [[1]]
    assert setup_filter([[0, 1, 3]], flip_filter=True).tolist() == [[0.75, 0.25, 0]]


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("taps", [[1.0, 3, 3, 1], [[1.0, 2], [3, 4]], [1.0] * 9])
def test_setup_filter_does_not_touch_what_it_is_given(taps, normalize):
    for make in (torch.tensor, lambda t: np.array(t, dtype=np.float32)):
        given = make(taps)
        made = setup_filter(given, normalize=normalize)
        made.zero_()
        assert given.tolist() == taps


def test_setup_filter_of_a_parameter():
    assert not setup_filter(torch.ones(4, requires_grad=True)).requires_grad


BAD_FILTERS = {
    "rank 3": (([[[1.0]]],), {}, ValueError, r"f must be a number, \[taps\] or \[fh, fw\].*got shape \[1, 1, 1\]"),
    "empty": (([],), {}, ValueError, "not empty, got shape"),
    "nan": (([1.0, math.nan],), {}, ValueError, "f must be finite"),
    "sum 0": (([1.0, -1.0],), {}, ValueError, "f sums to 0.*normalize=False"),
    "separable table": (([[1.0]],), {"separable": True}, ValueError, "separable=True needs f of rank 1"),
    "negative gain": (([1.0, 1.0],), {"separable": True, "gain": -1}, ValueError, "gain must be at least 0"),
    "gain nan": (([1.0, 1.0],), {"gain": math.nan}, ValueError, "gain must be finite"),
    "gain text": (([1.0, 1.0],), {"gain": "1"}, TypeError, "gain must be a number"),
}


@pytest.mark.parametrize("case", BAD_FILTERS)
def test_bad_filters(case):
    arguments, options, error, message = BAD_FILTERS[case]
    with pytest.raises(error, match=message):
        setup_filter(*arguments, **options)


# ----- filter2d, upsample2d, downsample2d -----------------------------------------------------------------


# The tolerance allows for float32 sums of up to 36 products in another order.
@pytest.mark.parametrize("case", [case for name in OPS for case in op_cases(name)], ids=str)
def test_golden(case, impl):
    t = case.tensors
    x, dy = t["x"].clone().requires_grad_(), t["dy"].clone().requires_grad_()
    y = OPS[case.op](x, t["f"], **case.args, impl=impl)
    first = torch.autograd.grad(y, [x], dy, create_graph=True)
    second = second_derivatives([x, dy], first, [t["v"]])
    actual = dict(zip(("y", "dx", "dd_x", "dd_dy"), [d.detach() for d in (y, *first, *second)], strict=True))
    assert_derivatives_close(actual, {key: t[key] for key in actual}, 3e-6)


@pytest.mark.parametrize("taps", range(1, 7))
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_sizes(taps, factor, impl):
    x, f = normal(1, 2, 6, 12), setup_filter([1.0] * taps)
    assert filter2d(x, f, impl=impl).shape == (1, 2, 6, 12)
    assert upsample2d(x, f, up=factor, impl=impl).shape == (1, 2, 6 * factor, 12 * factor)
    assert downsample2d(x, f, down=factor, impl=impl).shape == (1, 2, 6 // factor, 12 // factor)
    assert upsample2d(x, f, up=[factor, 1], impl=impl).shape == (1, 2, 6, 12 * factor)
    assert filter2d(x, f, padding=[1, 0, 2, -1], impl=impl).shape == (1, 2, 7, 13)


def test_flat_images_keep_their_level(impl):
    x, f = torch.full((1, 1, 8, 8), 5.0), setup_filter([1, 3, 3, 1])
    for y in (filter2d(x, f, impl=impl), upsample2d(x, f, impl=impl), downsample2d(x, f, impl=impl)):
        inside = y[..., 2:-2, 2:-2] if y.shape[-1] > 4 else y[..., 1:-1, 1:-1]
        assert torch.equal(inside, torch.full_like(inside, 5.0))
    assert torch.equal(filter2d(x, f, gain=2, impl=impl)[..., 2:-2, 2:-2], torch.full((1, 1, 4, 4), 10.0))


def test_images_stay_where_they_are(impl):
    """A ramp does not move by any fraction of a pixel when it is enlarged or reduced."""
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    f = setup_filter([1, 3, 3, 1])
    up = upsample2d(ramp, f, impl=impl)[0, 0, 16]
    assert_close(up[4:-4], (torch.arange(32.0) / 2 - 0.25)[4:-4])
    down = downsample2d(ramp, f, impl=impl)[0, 0, 4]
    assert_close(down[1:-1], (torch.arange(8.0) * 2 + 0.5)[1:-1])


def test_no_filter(impl):
    x = normal(1, 1, 4, 4)
    assert torch.equal(filter2d(x, None, impl=impl), x)
    assert torch.equal(downsample2d(x, None, impl=impl), x[..., ::2, ::2])
    up = upsample2d(x, None, impl=impl)
    assert torch.equal(up[..., 1::2, 1::2], 4 * x)
    assert (up != 0).sum() == x.numel()


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"x": [1.0]}, TypeError, "x must be a torch.Tensor"),
        ({"f": [1.0]}, TypeError, "f must be a torch.Tensor, got list"),
        ({"f": torch.ones(1, 1, 1)}, ValueError, "f must have rank 1 or 2"),
        ({"f": torch.ones(0)}, ValueError, "f must have at least one tap"),
        ({"padding": "1"}, TypeError, "padding must be an int"),
        ({"gain": None}, TypeError, "gain must be a number"),
        ({"impl": "cuda"}, ValueError, "impl='cuda'"),
    ],
)
def test_bad_arguments(name, wrong, error, message, impl):
    good = {"x": normal(1, 1, 8, 8), "f": setup_filter([1, 2, 1]), "impl": impl}
    with pytest.raises(error, match=message):
        OPS[name](**{**good, **wrong})


def test_bad_factors(impl):
    x, f = normal(1, 1, 8, 8), setup_filter([1, 2, 1])
    with pytest.raises(ValueError, match="up must be at least 1"):
        upsample2d(x, f, up=0, impl=impl)
    with pytest.raises(ValueError, match=r"down must be an int or \[x, y\]"):
        downsample2d(x, f, down=[1, 2, 3], impl=impl)
