"""Tests of bias_act and upfirdn2d on a GPU: compiled against the reference on the CPU."""

import math

import pytest
import torch
from op_checks import BLUR, IMPLS, NETWORK, SKEW, assert_derivatives_close, derivatives, normal

from eg3d_ops.bias_act import ACTIVATIONS, bias_act
from eg3d_ops.filters import setup_filter
from eg3d_ops.modulated_lrelu import modulated_lrelu
from eg3d_ops.upfirdn2d import upfirdn2d

pytestmark = pytest.mark.gpu

# Results are computed in float32 and rounded once to the type of x: half an ulp, plus float32's own error.
BIAS_ACT_TOLERANCE = {torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("dtype", BIAS_ACT_TOLERANCE)
@pytest.mark.parametrize("size", [(2, 5, 7, 9), (3, 64, 32, 32), (5, 513)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_bias_act_like_twin(act, dtype, size, channels_last):
    if channels_last and len(size) != 4:
        pytest.skip("no channels_last without images")
    x, b = normal(*size).to(dtype), normal(size[1], seed=8).to(dtype)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)

    def run(impl, device, to):
        inputs = [x.to(device, to), b.to(device, to)]
        return derivatives(lambda x, b: bias_act(x, b, act=act, impl=impl), inputs, rounded=dtype)

    twin = run("reference", "cpu", torch.float32)
    assert_derivatives_close(run("compiled", "cuda", dtype), twin, BIAS_ACT_TOLERANCE[dtype])


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_bias_act_gradcheck(act):
    x, b = (normal(*size, seed=8, dtype=torch.float64).cuda().requires_grad_() for size in ((2, 3, 4), (3,)))

    def function(x, b):
        return bias_act(x, b, act=act, clamp=0.8, impl="compiled")

    assert torch.autograd.gradcheck(function, (x, b))
    assert torch.autograd.gradgradcheck(function, (x, b))


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("impl", IMPLS)
def test_bias_act_autocast(act, impl):
    """The result has the type of x, although autocast runs some functions in float32."""
    x = normal(2, 3, 4, dtype=torch.float16).cuda()
    with torch.autocast("cuda", torch.float16):
        assert bias_act(x, normal(3).cuda(), act=act, impl=impl).dtype == torch.float16


@pytest.mark.parametrize("dtype", BIAS_ACT_TOLERANCE)
@pytest.mark.parametrize("size", [(2, 5, 7, 9), (3, 64, 32, 32), (1, 130, 5, 3)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("noise", [None, "shared", "own"])
def test_modulated_lrelu_like_twin(dtype, size, layout, noise):
    n, c, h, w = size
    x = normal(*size).to(dtype).to(memory_format=layout)
    scale, b, next_scale = normal(n, c, seed=1), normal(c, seed=2), normal(n, c, seed=3)
    noise = {None: None, "shared": normal(h, w, seed=4), "own": normal(n, 1, h, w, seed=4)}[noise]
    parts = (scale, b, noise, next_scale)
    found = modulated_lrelu(x.cuda(), *(p if p is None else p.cuda() for p in parts), clamp=1.2, impl="compiled")
    assert found.dtype == dtype and found.stride() == x.stride()
    expected = modulated_lrelu(x.float(), *parts, clamp=1.2, impl="reference")
    tolerance = BIAS_ACT_TOLERANCE[dtype]
    torch.testing.assert_close(found.cpu().float(), expected, rtol=tolerance, atol=tolerance)


# Sums are computed in float32 and rounded once to the type of x: half an ulp of the result.
UPFIRDN2D_TOLERANCE = {torch.float32: 5e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@pytest.mark.parametrize("use", [*NETWORK.values(), {"up": [3, 1], "down": [2, 3], "padding": [4, -1, 3, 2]}], ids=str)
@pytest.mark.parametrize(
    "f", [BLUR, SKEW, setup_filter([1.0, 3.0, 3.0, 1.0], separable=True)], ids=["blur", "skew", "taps"]
)
@pytest.mark.parametrize("dtype", UPFIRDN2D_TOLERANCE)
@pytest.mark.parametrize("size", [(2, 3, 7, 9), (1, 64, 33, 33), (1, 2, 70, 140)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_upfirdn2d_like_twin(use, f, dtype, size, layout):
    x = normal(*size).to(dtype).to(memory_format=layout)

    def run(impl, device, to):
        here = f.to(device)
        return derivatives(lambda x: upfirdn2d(x, here, **use, impl=impl), [x.to(device, to)], rounded=dtype)

    twin = run("reference", "cpu", torch.float32)
    # The gradient of a rounded gradient is rounded twice, so the tolerance is doubled.
    assert_derivatives_close(run("compiled", "cuda", dtype), twin, 2 * UPFIRDN2D_TOLERANCE[dtype])


@pytest.mark.parametrize("f", [BLUR, SKEW], ids=["blur", "skew"])
def test_upfirdn2d_gradcheck(f):
    x, f = normal(2, 2, 4, 5, dtype=torch.float64).cuda().requires_grad_(), f.cuda()

    def function(x):
        return upfirdn2d(x, f, up=2, down=[1, 3], padding=3, impl="compiled")

    assert torch.autograd.gradcheck(function, (x,))
    assert torch.autograd.gradgradcheck(function, (x,))


def test_filters_are_looked_into_once():
    x, f = normal(1, 1, 8, 8).cuda(), BLUR.cuda()
    upfirdn2d(x, f)
    with torch.cuda.graph(torch.cuda.CUDAGraph()):  # capturing a graph forbids waiting for the GPU
        upfirdn2d(x, f)
    f[0, 0] = math.nan
    with pytest.raises(ValueError, match="f must be finite"):
        upfirdn2d(x, f)


@pytest.mark.parametrize("op", ["bias_act", "upfirdn2d"])
def test_more_than_2_to_31_elements(op):
    """The last numbers lie beyond the range of 32-bit offsets."""
    size = (9, 64, 2048, 2048)  # 2.4e9 numbers of 16 bits
    if torch.cuda.mem_get_info()[0] < 12 * 2**30:
        pytest.skip("needs 12 GB of GPU memory")
    x = torch.zeros(size, dtype=torch.bfloat16, device="cuda")
    x[-1] = normal(64, 2048, 2048).cuda()
    if op == "bias_act":
        b = normal(64).cuda()
        found, expected = (bias_act(part, b, act="lrelu", clamp=1.5, impl="compiled") for part in (x, x[-1:].clone()))
    else:
        f = BLUR.cuda()
        found, expected = (upfirdn2d(part, f, padding=[2, 1, 2, 1], impl="compiled") for part in (x, x[-1:].clone()))
    assert torch.equal(found[-1:], expected)


def test_too_many_columns_are_refused():
    """Threads are numbered by an int within a row, so that rows end at 2^31 - 32 numbers."""
    if torch.cuda.mem_get_info()[0] < 9 * 2**30:
        pytest.skip("needs 9 GB of GPU memory")
    x = torch.zeros(1, 1, 2**30 - 8, 2, dtype=torch.float16, device="cuda").permute(0, 3, 1, 2)  # [1, 2, 1, 2^30 - 8]
    with pytest.raises(RuntimeError, match="at most 2147483616 numbers in a row of the output, got 2147483632"):
        upfirdn2d(x, None, impl="compiled")


@pytest.mark.parametrize("op", ["bias_act", "upfirdn2d"])
def test_side_stream(op):
    x, b, f = normal(2, 64, 128, 128).cuda(), normal(64).cuda(), BLUR.cuda()

    def run(x):
        return bias_act(x, b, act="lrelu", impl="compiled") if op == "bias_act" else upfirdn2d(x, f, impl="compiled")

    expected, side = run(x), torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(20_000_000)  # the main stream is ahead by milliseconds
        found = run(x + 0)  # exists only when the side stream has got there
    torch.cuda.current_stream().wait_stream(side)
    assert torch.equal(found, expected)


def test_filters_made_in_inference_mode_are_looked_into_once():
    with torch.inference_mode():
        x, f = normal(1, 1, 8, 8).cuda(), BLUR.cuda()
        upfirdn2d(x, f)
        torch.cuda.set_sync_debug_mode("error")
        try:
            upfirdn2d(x, f)
        finally:
            torch.cuda.set_sync_debug_mode("default")
