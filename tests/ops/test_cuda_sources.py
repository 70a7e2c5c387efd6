"""Tests of the CUDA sources: the emulator runs them on the CPU, and they are compared with the PyTorch reference.

See `cuda_emulator/emulated.py` for what this can show and what only a GPU can show.
"""

import ctypes
import math
import re
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from cuda_emulator import emulated
from cuda_emulator.scenes import SCENES, backward, forward, normal, random_cotangents, scene
from torch import Tensor

from eg3d_ops import _build
from eg3d_ops.bias_act import ACTIVATIONS, _bias_act
from eg3d_ops.marching import interval_weights
from eg3d_ops.modulated_lrelu import _modulated_lrelu
from eg3d_ops.planes import Decoder, decode, sample_planes
from eg3d_ops.render_rays import CUDA_LIMITS, _render_rays
from eg3d_ops.upfirdn2d import _upfirdn2d

pytestmark = pytest.mark.lengthy

# Rounding of the element type relative to the larger numbers of a result, with a margin for a few operations.
ROUNDING = {torch.float64: 1e-14, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
DTYPES = list(ROUNDING)


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Compare shapes, positions of NaN and infinities, and values to `tolerance` times the largest expected one."""
    assert actual.shape == expected.shape
    scale = expected[expected.isfinite()].abs().max().item() if expected.isfinite().any() else 1.0
    torch.testing.assert_close(
        actual.double(), expected.double(), rtol=0, atol=tolerance * max(scale, 1e-3), equal_nan=True
    )


# ----- The emulator itself ------------------------------------------------------------------------------


@pytest.mark.parametrize("backwards", [False, True])
def test_emulator_shows_mistakes(ops, backwards: bool) -> None:
    """The emulator detects mistakes; otherwise the tests below would prove little.

    The kernel passes each thread's index to its left neighbour.
    """
    switches = emulated.load()[1]
    out = torch.zeros(64)
    right = (torch.arange(64) + 1) % 64

    def run(mistake: int) -> bytes | None:
        switches.emulator_reverse(backwards)
        message: bytes | None = switches.emulator_self_test(mistake, ctypes.c_void_p(out.data_ptr()))
        switches.emulator_reverse(False)
        return message

    assert run(0) is None
    assert out.equal(right.float())
    assert run(1) is None  # a missing barrier blocks nothing, but the result is wrong
    assert not out.equal(right.float())
    assert b"never come" in (run(2) or b"")  # threads at different barriers
    assert b"shared memory" in (run(3) or b"")  # a write beyond its end


# ----- bias_act -----------------------------------------------------------------------------------------


def layouts() -> dict[str, tuple[Tensor, int]]:
    """Return x and the dimension of the bias for each layout."""
    return {
        "NCHW": (normal(2, 5, 7, 3), 1),
        "channels last": (normal(2, 5, 7, 3).contiguous(memory_format=torch.channels_last), 1),
        "transposed": (normal(3, 7, 5).transpose(0, 2), 2),
        "several blocks": (normal(3, 2, 41, 43), 1),
        "rows": (normal(11, 6), 1),
        "first dimension": (normal(6, 11), 0),
        "one channel": (normal(4, 1, 3), 1),
        "not dense": (normal(4, 6, 10)[:, ::2, 1:7], 1),
        "expanded": (normal(4, 1, 5).expand(4, 6, 5), 1),
        "misaligned": (normal(61)[1:].reshape(3, 4, 5), 1),
        "one element": (normal(1), 0),
        "empty": (normal(2, 0, 3), 1),
    }


@pytest.mark.parametrize("layout", layouts())
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bias_act_layouts(ops, layout: str, dtype: torch.dtype) -> None:
    x, dim = layouts()[layout]
    x, b = cast(x, dtype), normal(x.shape[dim], seed=1).to(dtype)
    y = ops.bias_act(x, b, dim, 2, 0.3, 1.5, 0.8)
    assert y.stride() == torch.empty_like(x).stride()
    assert_close(y, _bias_act(x.double(), b.double(), dim, "lrelu", 0.3, 1.5, 0.8), ROUNDING[dtype])
    dy = cast(layouts()[layout][0].flip(0), dtype).contiguous()  # another layout than that of y
    from_y = ops.bias_act_grad(dy, None, None, y, dim, 2, 0.3, 1.5, 0.8)
    from_x = ops.bias_act_grad(dy, x, b, None, dim, 2, 0.3, 1.5, 0.8)
    expected = dy.double() * 1.5 * torch.where(x.double() + shaped(b, x, dim) > 0, torch.tensor(1.0).double(), 0.3)
    assert_close(from_y, expected * (y.double().abs() < torch.tensor(0.8, dtype=dtype)), ROUNDING[dtype])
    if dtype in (torch.float32, torch.float64):  # half precision: values that round to the clamp are clamped in y only
        assert_close(from_x, from_y, ROUNDING[dtype])


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return x in `dtype` with the same strides and offset; .to would make it dense."""
    storage = torch.empty(0, dtype=x.dtype).set_(x.untyped_storage())
    return storage.to(dtype).as_strided(x.shape, x.stride(), x.storage_offset())


def shaped(b: Tensor, x: Tensor, dim: int) -> Tensor:
    return b.double().reshape([-1 if d == dim else 1 for d in range(x.ndim)])


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("clamp", [None, 0.7, 0.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_bias_act_derivatives(ops, act: str, clamp: float | None, dtype: torch.dtype) -> None:
    """Value, first and second gradient agree with autograd through the reference in float64."""
    x = torch.cat([normal(2, 5, 40), normal(2, 5, 40, seed=3) * 12], 2).to(dtype)  # also large x, where exp is tiny
    b, dy, v = normal(5, seed=1).to(dtype), normal(*x.shape, seed=4).to(dtype), normal(*x.shape, seed=5).to(dtype)
    settings = (1, ACTIVATIONS[act].index, 0.3, 1.3, -1.0 if clamp is None else clamp)
    at, cotangent = x.double().clone().requires_grad_(), dy.double().clone().requires_grad_()
    y = _bias_act(at, b.double(), 1, act, 0.3, 1.3, clamp)
    (first,) = torch.autograd.grad(y, at, cotangent, create_graph=True)
    second = torch.autograd.grad(first, at, v.double(), allow_unused=True)[0] if first.requires_grad else None
    # Above 20, PyTorch returns x for softplus(x), which is off by 2e-9; the kernel does not.
    tolerance = max(ROUNDING[dtype], 1e-8 if act == "softplus" else 0)
    assert_close(ops.bias_act(x, b, *settings), y, tolerance)
    assert_close(ops.bias_act_grad(dy, x, b, None, *settings), first, tolerance)
    second = torch.zeros_like(first) if second is None else second
    assert_close(ops.bias_act_grad2(v, dy, x, b, *settings), second, tolerance)


def test_bias_act_without_bias_and_linear_gradient(ops) -> None:
    x = normal(3, 70).float()
    assert ops.bias_act(x, None, 0, 0, 0.0, 2.0, -1.0).equal(x * 2)
    assert ops.bias_act_grad(x, None, None, None, 0, 0, 0.0, 2.0, -1.0).equal(x * 2)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_bias_act_hands_nan_on(ops, act: str) -> None:
    x = torch.tensor([1.0, math.nan, -1.0, math.nan, 2.0])
    y = ops.bias_act(x, None, 0, ACTIVATIONS[act].index, 0.2, 1.0, 0.5)
    assert y.isnan().equal(x.isnan())
    dy = torch.ones(5)
    slope = ops.bias_act_grad(dy, x, None, None, 0, ACTIVATIONS[act].index, 0.2, 1.0, -1.0)
    assert ACTIVATIONS[act].piecewise_linear or slope.isnan().equal(x.isnan())
    assert ops.bias_act_grad(x, dy, None, None, 0, ACTIVATIONS[act].index, 0.2, 1.0, -1.0).isnan().equal(x.isnan())


def test_stored_clamp_is_recognised(ops) -> None:
    """The clamp 0.1 rounds to less in half precision; outputs at the limit must still count as clamped."""
    x = torch.tensor([3.0, 0.05, -3.0], dtype=torch.float16)
    y = ops.bias_act(x, None, 0, 2, 0.2, 1.0, 0.1)
    assert ops.bias_act_grad(torch.ones_like(x), None, None, y, 0, 2, 0.2, 1.0, 0.1).tolist() == [0, 1, 0]


# ----- modulated_lrelu ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(2, 5, 7, 3), (3, 64, 9, 11), (1, 130, 2, 2), (1, 1, 1, 1), (1, 3, 0, 2)], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_modulated_lrelu(ops, size: tuple[int, ...], layout: torch.memory_format, dtype: torch.dtype) -> None:
    n, c, h, w = size
    inner = torch.promote_types(dtype, torch.float32)
    x = normal(*size).to(dtype).to(memory_format=layout)
    scale, b, next_scale = (normal(*s, seed=i).to(inner) for i, s in enumerate([(n, c), (c,), (n, c)]))
    for noise in (normal(h, w, seed=4).to(inner), normal(n, 1, h, w, seed=5).to(inner), None):
        parts = (scale, b, noise, next_scale if noise is not None else None)
        exact = [part if part is None else part.double() for part in parts]
        for clamp in (-1.0, 1.2):
            y = ops.modulated_lrelu(x, *parts, 0.3, 1.5, clamp)
            assert y.dtype == dtype and y.stride() == x.stride()
            assert_close(y, _modulated_lrelu(x.double(), *exact, 0.3, 1.5, clamp), ROUNDING[dtype])


# ----- upfirdn2d ----------------------------------------------------------------------------------------

RESAMPLING = [  # up, down, padding, filter
    ([1, 1], [1, 1], [1, 2, 2, 1], [4, 4]),  # the three cases that have their own kernels
    ([2, 2], [1, 1], [2, 1, 2, 1], [4, 4]),
    ([1, 1], [2, 2], [1, 1, 1, 1], [4, 4]),
    ([2, 2], [1, 1], [-1, 2, 3, -2], [4, 4]),  # crop
    ([1, 1], [2, 2], [-1, 2, 3, -2], [4, 4]),
    ([2, 1], [1, 2], [3, 0, 0, 4], [2, 5]),
    ([3, 2], [2, 5], [4, 4, 6, 6], [7, 3]),
    ([4, 1], [1, 3], [-7, -2, 5, 1], [1, 6]),
    ([1, 1], [1, 1], [0, 0, 0, 0], [1, 1]),
    ([1, 1], [1, 1], [12, 12, 12, 12], [25]),  # separable
    ([2, 3], [3, 2], [5, 6, 4, 7], [12]),
]


@pytest.mark.parametrize("case", RESAMPLING, ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("flip", [False, True])
def test_upfirdn2d(ops, case, channels_last: bool, flip: bool) -> None:
    up, down, padding, taps = case
    f = normal(*taps, seed=1).float()
    x = normal(2, 3, 11, 9).float()
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    y = ops.upfirdn2d(x, f, up, down, padding, flip, 1.5)
    assert y.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    assert_close(y, _upfirdn2d(x.double(), f, tuple(up), tuple(down), padding, flip, 1.5), ROUNDING[torch.float32])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_upfirdn2d_dtypes(ops, dtype: torch.dtype) -> None:
    x, f = normal(1, 2, 70, 37).to(dtype)[:, :, ::2], normal(4, 4, seed=1).float()  # several blocks, not dense
    y = ops.upfirdn2d(x, f, [2, 2], [1, 1], [2, 1, 2, 1], False, 4.0)
    assert y.dtype == dtype
    assert_close(y, _upfirdn2d(x.double(), f, (2, 2), (1, 1), [2, 1, 2, 1], False, 4.0), ROUNDING[dtype])


def test_upfirdn2d_hands_nan_on_and_no_further(ops) -> None:
    x = torch.zeros(1, 1, 8, 8)
    x[0, 0, 4, 3] = math.nan
    y = ops.upfirdn2d(x, torch.ones(3, 3), [1, 1], [1, 1], [1, 1, 1, 1], False, 1.0)
    assert y.isnan().nonzero().tolist() == [[0, 0, i, j] for i in (3, 4, 5) for j in (2, 3, 4)]


# ----- The renderer -------------------------------------------------------------------------------------


@pytest.mark.parametrize("errors", ["usual", "largest"])
@pytest.mark.parametrize("name", SCENES)
def test_render_rays(ops, name: str, errors: str) -> None:
    """Values and gradients agree with the reference in float64, whatever error of the intrinsics CUDA allows.

    Values may be off by 3e-6, gradients by 1e-5 of their largest number. The measured errors are 1.1e-6 and 4e-6,
    both where densities are in the hundreds; the reference in float32 has errors of the same size.
    """
    with emulated.largest_errors() if errors == "largest" else nullcontext():
        compare_with_reference(ops, scene(**SCENES[name]))


def compare_with_reference(ops: Any, s: dict[str, Any]) -> None:
    leaves = [t.clone().requires_grad_() for t in (s["planes"], *s["decoder"])]
    twin = _render_rays(**{**s, "planes": leaves[0], "decoder": Decoder(*leaves[1:])})
    for what, actual, want in zip(twin._fields, forward(ops, s), twin, strict=True):
        error = (actual.double() - want.reshape(actual.shape)).abs().max()
        assert error < 3e-6, f"{what}: off by {error:.1e}"

    cotangents = random_cotangents(s)
    shaped_as_twin = [c.reshape(out.shape) for c, out in zip(cotangents, twin[:3], strict=True)]
    gradients = torch.autograd.grad(twin[:3], leaves, shaped_as_twin)
    found = backward(ops, s, cotangents, twin.depths)
    for what, actual, want in zip(("planes", *Decoder._fields), found, gradients, strict=True):
        error = (actual.double() - want).abs().max() / want.abs().max()
        assert error < 1e-5, f"d_{what}: off by {error:.1e} of its largest number"


def test_a_scene_makes_kernels_skip_samples() -> None:
    """One scene has samples of weight zero before, between and behind others, so that skipping them is tested."""
    s = scene(**SCENES["empty and opaque"])
    with torch.no_grad():
        depths = _render_rays(**s).depths
        points = s["origins"][:, :, None] + depths[..., None] * s["directions"][:, :, None]
        features = sample_planes(s["planes"], points.flatten(1, 2), s["axes"], s["box_warp"])
        weights = interval_weights(decode(features, s["decoder"])[0].reshape(depths.shape), depths)
    kept = (weights > 1e-9).long()
    assert 0.2 < kept.double().mean() < 0.8
    assert (kept.diff() == 1).any()  # a sample with weight after one without
    assert (kept.diff() == -1).any()  # a sample without weight after one with weight


@pytest.mark.parametrize(
    "name", ["plain", "random draws", "empty and opaque", "more fine than coarse", "opaque", "more rays than warps"]
)
def test_order_of_threads_does_not_matter(ops, name: str) -> None:
    """The order of threads does not change the results; it would if a barrier were missing.

    Only sums of atomic additions may differ, by rounding.
    """
    s = scene(**SCENES[name])
    values = forward(ops, s)
    gradients = backward(ops, s, random_cotangents(s), values[3])
    with emulated.reversed_threads():
        values_again = forward(ops, s)
        gradients_again = backward(ops, s, random_cotangents(s), values[3])
    for a, b in zip((*values, *gradients[1:]), (*values_again, *gradients_again[1:]), strict=True):
        assert a.equal(b)
    assert_close(gradients[0], gradients_again[0], 1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_planes_are_only_stored_so(ops, dtype: torch.dtype) -> None:
    """All arithmetic is float32, so the result equals that of planes rounded beforehand, bit for bit."""
    s = scene()
    rounded = {**s, "planes": s["planes"].to(dtype).double()}
    values, same = forward(ops, s, dtype), forward(ops, rounded)
    assert all(a.equal(b) for a, b in zip(values, same, strict=True))
    gradients = backward(ops, s, random_cotangents(s), values[3], dtype)
    assert all(g.dtype == torch.float32 for g in gradients)
    same = backward(ops, rounded, random_cotangents(s), values[3])
    assert all(a.equal(b) for a, b in zip(gradients, same, strict=True))


@pytest.mark.parametrize("layout", ["already packed", "transposed", "sliced"])
def test_planes_in_any_layout(ops, layout: str) -> None:
    s = scene(channels=8)
    planes = s["planes"].float()
    expected = forward(ops, s)
    if layout == "already packed":
        planes = planes.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    elif layout == "transposed":
        planes = planes.transpose(3, 4).contiguous().transpose(3, 4)
    else:
        planes = torch.nn.functional.pad(planes, (1, 2, 3, 4))[..., 3:-4, 1:-2]
    assert planes.equal(s["planes"].float())
    found = forward(ops, {**s, "planes": planes})
    assert all(a.equal(b) for a, b in zip(found, expected, strict=True))


def test_no_rays(ops) -> None:
    s = scene(rays=0)
    color, depth, weight, depths = forward(ops, s)
    assert [list(t.shape) for t in (color, depth, weight, depths)] == [[2, 0, 3], [2, 0], [2, 0], [2, 0, 13]]
    gradients = backward(ops, s, random_cotangents(s), depths)
    assert [g.shape for g in gradients] == [t.shape for t in (s["planes"], *s["decoder"])]
    assert not any(g.any() for g in gradients)


def test_nan_reaches_the_rays_that_meet_it(ops) -> None:
    s = scene(draws=True)
    s["planes"][1] = math.nan
    color, depth, weight, depths = forward(ops, s)
    for t in (color, depth, weight):
        assert t[0].isfinite().all()
        assert t[1].isnan().all()
    gradients = backward(ops, s, random_cotangents(s), depths)
    assert gradients[0][0].isfinite().all()
    assert gradients[1].isnan().any()


@pytest.mark.parametrize(
    ("what", "size"),
    [("channels", {"channels": 33}), ("hidden units", {"hidden": 65}), ("colours", {"colors": 33})],
)
def test_limits_are_refused(ops, what: str, size: dict[str, int]) -> None:
    s = scene(**size)
    with pytest.raises(RuntimeError, match=f"at most {CUDA_LIMITS[what]} {what}, got {CUDA_LIMITS[what] + 1}"):
        forward(ops, s)


def test_too_many_samples_are_refused(ops) -> None:
    with pytest.raises(RuntimeError, match="at most 256 samples per ray, got 257"):
        forward(ops, scene(coarse=200, fine=57))


def test_limits_are_those_python_checks() -> None:
    text = (_build.CSRC / "cuda" / "render.h").read_text()
    names = {"Channels": "channels", "Hidden": "hidden units", "Colors": "colours", "Samples": "samples per ray"}
    found = {name: int(value) for name, value in re.findall(r"kMax(\w+) = (\d+)", text)}
    assert {names.get(name, name.lower()): value for name, value in found.items()} == CUDA_LIMITS
