"""Tests of bias_act and upfirdn2d on a GPU: compiled against the reference on the CPU."""

import math

import pytest
import torch
from op_checks import BLUR, IMPLS, NETWORK, SKEW, assert_derivatives_close, derivatives, normal

from eg3d_ops.bias_act import ACTIVATIONS, bias_act
from eg3d_ops.filters import setup_filter
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
