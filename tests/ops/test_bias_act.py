"""Tests of bias_act: official values, compiled against reference, derivatives, and rejected arguments."""

import math

import pytest
import torch
from goldens import op_cases
from op_checks import (
    IMPLS,
    assert_derivatives_close,
    derivatives,
    normal,
    second_derivatives,
)

from eg3d_ops.bias_act import ACTIVATIONS, bias_act

CURVED = [act for act, spec in ACTIVATIONS.items() if not spec.piecewise_linear]


# ----- Official values and values computed by hand --------------------------------------------------------


# Float32 with another exp: errors of 1e-6 of the largest value; a wrong slope, gain or clamp is off by 1e-1.
@pytest.mark.parametrize("case", op_cases("bias_act"), ids=str)
def test_golden(case, impl):
    t, args = case.tensors, dict(case.args)
    names = ["x", "b"] if args.pop("bias") else ["x"]
    inputs = [t[name].clone().requires_grad_() for name in names]
    y = bias_act(*inputs, **args, impl=impl)
    dy = t["dy"].clone().requires_grad_()
    first = torch.autograd.grad(y, inputs, dy, create_graph=True)
    second = second_derivatives([*inputs, dy], first, [t[n] for n in ("v", "u") if n in t])
    keys = ["y"] + [f"d{n}" for n in names] + [f"dd_{n}" for n in [*names, "dy"]]
    actual = dict(zip(keys, [d.detach() for d in (y, *first, *second)], strict=True))
    assert_derivatives_close(actual, {key: t[key] for key in keys}, 5e-6)


def test_by_hand(impl):
    x = torch.tensor([[[-3.0, -1.0, 0.5, 9.0]], [[1.0, 2.0, 3.0, 4.0]]])  # [2, 1, 4]
    b = torch.tensor([1.0])
    y = bias_act(x, b, act="lrelu", alpha=0.5, gain=2, clamp=8, impl=impl)
    assert torch.equal(y, torch.tensor([[[-2.0, 0.0, 3.0, 8.0]], [[4.0, 6.0, 8.0, 8.0]]]))
    assert torch.equal(bias_act(x, b, act="relu", clamp=0, impl=impl), torch.zeros_like(x))
    assert torch.equal(bias_act(x[0, 0], impl=impl), x[0, 0])  # without bias, dim does not matter
    assert torch.equal(bias_act(torch.tensor(-2.0), act="relu", gain=-1, impl=impl), torch.tensor(0.0))


# ----- Compiled against reference -------------------------------------------------------------------------

# 3e-6 of the largest value: gradients of the bias sum up to 500 terms of either sign in another order.
CLOSE = 3e-6


def both(x, b, **options):
    def run(impl):
        return derivatives(lambda x, b=None: bias_act(x, b, impl=impl, **options), [x] if b is None else [x, b])

    return run("compiled"), run("reference")


def away_from_kinks(x, b, act, alpha, gain, clamp):
    """Return x, shifted wherever rounding of x + b could decide between two slopes."""
    y = bias_act(x.double(), b.double(), act=act, alpha=alpha, gain=gain, impl="reference")
    near = (x + b.reshape(-1, 1, 1)).abs() < 1e-4
    if clamp is not None:
        near |= (y.abs() - clamp).abs() < 1e-4
    return torch.where(near, x + 0.01, x)


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize(("gain", "clamp", "scale"), [(None, None, 1), (0.7, 0.6, 1), (-1.5, 20.0, 30)])
def test_compiled_like_twin(act, gain, clamp, scale, isa):
    x, b = normal(2, 5, 7, 9) * scale, normal(5, seed=8)
    x = away_from_kinks(x, b, act, None, gain, clamp)
    compiled, twin = both(x, b, act=act, gain=gain, clamp=clamp)
    assert_derivatives_close(compiled, twin, CLOSE)


SHAPES = {
    "images": ((2, 3, 16, 16), 1),
    "one number per row": ((4, 7), 1),
    "many numbers per row": ((3, 700), 1),
    "long runs": ((2, 2, 90, 91), 1),
    "small images": ((3, 33, 2, 2), 1),
    "first dimension": ((5, 3, 11), 0),
    "last dimension": ((5, 3, 11), 2),
    "one channel": ((3, 1, 5, 5), 1),
    "one number": ((1,), 0),
    "vector": ((37,), 0),
    "five dimensions": ((2, 3, 2, 3, 5), 2),
    "empty batch": ((0, 3, 4, 4), 1),
    "empty channels": ((2, 0, 4), 1),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("act", ["lrelu", "softplus"])
def test_shapes(shape, act, isa):
    size, dim = SHAPES[shape]
    compiled, twin = both(normal(*size), normal(size[dim], seed=8), dim=dim, act=act, clamp=1.1)
    assert_derivatives_close(compiled, twin, CLOSE)


LAYOUTS = {
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0),
    "every second column": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "expanded": lambda x: x[:, :, :1, :].expand_as(x),
    "expanded channel": lambda x: x[:, :1].expand_as(x),
    "slice of a batch": lambda x: torch.cat([x, x])[1:3],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("act", ["lrelu", "tanh"])
def test_layouts(layout, act, compiled_cpu):
    x, b = LAYOUTS[layout](normal(2, 6, 5, 7)), normal(12, seed=8)[::2]
    y = bias_act(x, b, act=act, impl="compiled")
    assert y.stride() == torch.empty_like(x).stride()
    for v in (y.clone(), y[..., :1].expand_as(y), y.to(memory_format=torch.channels_last)):  # other layouts
        leaf = x.detach().requires_grad_()
        gradients = []
        for i in ("compiled", "reference"):
            (d,) = torch.autograd.grad(bias_act(leaf, b, act=act, clamp=0.9, impl=i), leaf, v)
            gradients.append(d)
        torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)  # a few roundings of numbers of size 1
    compiled, twin = both(x, b, act=act)
    assert_derivatives_close(compiled, twin, CLOSE)


def test_no_bias(isa):
    for act in ACTIVATIONS:
        compiled, twin = both(normal(3, 50), None, act=act)
        assert_derivatives_close(compiled, twin, CLOSE)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_accuracy_over_the_whole_range(act, isa):
    """The error relative to float64 is at most 4 ulp (5e-7), also where exp(x) - 1 or tanh(x) is nearly x."""
    x = torch.cat([s * torch.logspace(-30, 1.9, 2000) for s in (-1, 1)])
    y = bias_act(x, act=act, impl="compiled").double()
    exact = bias_act(x.double(), act=act, impl="reference")
    ordinary = exact.abs() > 1e-36  # smaller results may be subnormal or flushed to zero
    assert ordinary.sum() > 1900
    assert ((y - exact).abs() / exact.abs())[ordinary].max() < 5e-7
    assert (y - exact).abs()[~ordinary].sum() < 1e-33


def test_threads_do_not_matter(compiled_cpu):
    x, b = normal(2, 9, 101, 47), normal(9, seed=8)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 8):
            torch.set_num_threads(threads)
            results.append(bias_act(x, b, act="swish", impl="compiled"))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(results[0], r) for r in results[1:])


# ----- Derivatives ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("clamp", [None, 0.8])
def test_gradcheck(act, clamp, impl):
    x, b = (normal(*size, seed=8, dtype=torch.float64).requires_grad_() for size in ((2, 3, 4), (3,)))

    def function(x, b):
        return bias_act(x, b, act=act, clamp=clamp, impl=impl)

    assert torch.autograd.gradcheck(function, (x, b))
    assert torch.autograd.gradgradcheck(function, (x, b))


@pytest.mark.parametrize("act", CURVED)
def test_third_derivative_is_refused_where_not_compiled(act, compiled_cpu):
    x = normal(4).requires_grad_()

    def second(impl):
        (d,) = torch.autograd.grad(bias_act(x, act=act, impl=impl).sum(), x, create_graph=True)
        (dd,) = torch.autograd.grad(d.sum(), x, create_graph=True)
        return dd

    with pytest.raises(NotImplementedError, match=f"third derivatives of bias_act.*{act}.*impl='reference'"):
        torch.autograd.grad(second("compiled").sum(), x)
    assert torch.autograd.grad(second("reference").sum(), x)[0].abs().sum() > 0


def test_training_keeps_only_the_result(compiled_cpu):
    """If the sign of y determines the slope, x is not kept for the backward pass, which saves memory."""
    x, b = normal(2, 3, 4).requires_grad_(), normal(3).requires_grad_()
    for act, spec in ACTIVATIONS.items():
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda _: None):
            y = bias_act(x, b, act=act, impl="compiled")
        kept = [t.data_ptr() for t in saved]
        if act == "linear":
            assert kept == []
        else:
            assert kept == ([y.data_ptr()] if spec.piecewise_linear else [x.data_ptr(), b.data_ptr()])


@pytest.mark.parametrize("options", [{"gain": -1.0}, {"gain": 0.0}, {"alpha": -0.5}, {"alpha": 0.0}, {"alpha": 3.0}])
def test_slopes_that_the_sign_of_y_does_not_tell(options, compiled_cpu):
    x, b = normal(2, 5, 9), normal(5, seed=8)
    compiled, twin = both(x, b, act="lrelu", clamp=0.7, **options)
    assert_derivatives_close(compiled, twin, CLOSE)


# ----- Special values, types, purity ----------------------------------------------------------------------

NANS = torch.tensor([0x7FC00000, -1, 0x7F800001, 0x7FFFFFFF], dtype=torch.int32).view(torch.float32)


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("clamp", [None, 1.0])
def test_nan_goes_through(act, clamp, isa):
    """Any kind of NaN, at any position of a vector, gives NaN and does not affect its neighbours."""
    x = normal(1, 4, 67)
    x[:, :, 5::9] = NANS.reshape(1, 4, 1)
    y = bias_act(x, normal(4), act=act, clamp=clamp, impl="compiled")
    assert torch.equal(y.isnan(), x.isnan())
    b = normal(4)
    b[1] = NANS[1]
    y = bias_act(normal(1, 4, 67), b, act=act, clamp=clamp, impl="compiled")
    assert torch.equal(y.isnan(), b.isnan()[None, :, None].expand_as(y))


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_nan_goes_back(act, compiled_cpu):
    x, b = normal(2, 3, 5).requires_grad_(), normal(3).requires_grad_()
    dy = torch.ones(2, 3, 5)
    dy[0, 1, 2] = torch.nan
    dx, db = torch.autograd.grad(bias_act(x.abs(), b * 0, act=act, impl="compiled"), (x, b), dy)
    assert dx.isnan().nonzero().tolist() == [[0, 1, 2]]
    assert db.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_infinities_like_twin(act, isa):
    x = torch.tensor([math.inf, -math.inf, 3e38, -3e38, 0.0, -0.0]).requires_grad_()
    for clamp in (None, 2.0):
        y = {i: bias_act(x, act=act, gain=1, clamp=clamp, impl=i) for i in IMPLS}
        finite = [0, 2, 4, 5] if act == "swish" else [0, 1, 2, 3, 4, 5]  # in PyTorch, -inf * sigmoid(-inf) is NaN
        torch.testing.assert_close(y["compiled"][finite], y["reference"][finite], rtol=1e-6, atol=1e-37)
    (dx,) = torch.autograd.grad(bias_act(x, act="linear", impl="compiled"), x, torch.ones(6))
    assert torch.equal(dx, torch.ones(6))  # nothing is clamped, not even infinity


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_cpu_is_left_to_the_twin(dtype, compiled_cpu):
    x, b = normal(2, 3, 4, dtype=dtype), normal(3)
    y = bias_act(x, b, act="tanh", clamp=1e5)  # beyond the range of float16
    assert y.dtype == dtype
    assert torch.equal(y, bias_act(x, b, act="tanh", impl="reference"))
    with pytest.raises(TypeError, match=f"x is {dtype}, but compiled bias_act on cpu takes torch.float32"):
        bias_act(x, b, impl="compiled")


def test_bias_of_another_type(impl):
    x, b = normal(2, 3, 4), normal(3, dtype=torch.float64).requires_grad_()
    y = bias_act(x, b, act="lrelu", impl=impl)
    assert y.dtype == torch.float32
    (db,) = torch.autograd.grad(y.sum(), b)
    assert db.dtype == torch.float64


def test_autocast(impl):
    """bias_act keeps the type of x, whatever autocast does to the layers around it."""
    x, b = normal(2, 3, 8).requires_grad_(), normal(3).requires_grad_()
    w = normal(8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert bias_act(x, b, act="softplus", impl=impl).dtype == torch.float32
        h = x @ w
        assert h.dtype == torch.bfloat16
        y = bias_act(h, b, act="softplus", impl="reference")
        assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert x.grad.dtype == b.grad.dtype == torch.float32


def test_inputs_stay_as_they_are(impl):
    for act in ACTIVATIONS:
        x, b = normal(2, 3, 4), normal(3, seed=8)
        y = bias_act(x, b, act=act, impl=impl)
        assert y.data_ptr() != x.data_ptr()
        derivatives(lambda x, b, act=act: bias_act(x, b, act=act, impl=impl), [x, b])
        assert torch.equal(x, normal(2, 3, 4))
        assert torch.equal(b, normal(3, seed=8))
    assert bias_act(x, impl=impl).data_ptr() != x.data_ptr()  # a copy, even if there is nothing to compute


# ----- Bad arguments --------------------------------------------------------------------------------------

BAD = {
    "x no tensor": ({"x": [1.0]}, TypeError, "x must be a torch.Tensor, got list"),
    "integer x": ({"x": torch.zeros(2, 3, dtype=torch.int64)}, TypeError, "x must be floating point"),
    "b no tensor": ({"b": 1.0}, TypeError, "b must be a torch.Tensor"),
    "b of rank 2": ({"b": torch.zeros(1, 3)}, ValueError, r"b must have rank 1 \[C\], got shape \[1, 3\]"),
    "b too long": ({"b": torch.zeros(4)}, ValueError, r"b must have shape \[3\] \(dimension 1 of x"),
    "integer b": ({"b": torch.zeros(3, dtype=torch.int32)}, TypeError, "b must be floating point"),
    "b elsewhere": ({"b": torch.zeros(3, device="meta")}, ValueError, "b is on meta but x is on cpu"),
    "dim too large": ({"dim": 3}, ValueError, r"dim=3: must be in 0\.\.\.2"),
    "negative dim": ({"dim": -1}, ValueError, "dim=-1"),
    "dim no int": ({"dim": 1.0}, TypeError, "dim must be an int"),
    "unknown act": ({"act": "gelu"}, ValueError, "act='gelu': must be one of linear, relu, lrelu"),
    "alpha text": ({"alpha": "0.2"}, TypeError, "alpha must be a number"),
    "alpha nan": ({"alpha": math.nan}, ValueError, "alpha must be finite"),
    "gain infinite": ({"gain": math.inf}, ValueError, "gain must be finite"),
    "gain bool": ({"gain": True}, TypeError, "gain must be a number"),
    "negative clamp": ({"clamp": -1}, ValueError, "clamp must be at least 0, got -1"),
    "clamp nan": ({"clamp": math.nan}, ValueError, "clamp must be finite"),
    "unknown impl": ({"impl": "cuda"}, ValueError, "impl='cuda'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(case, impl):
    wrong, error, message = BAD[case]
    good = {"x": normal(2, 3, 4), "b": normal(3), "impl": impl}
    with pytest.raises(error, match=message):
        bias_act(**{**good, **wrong})
