"""Tests of bias_act and upfirdn2d as torch.library ops: opcheck, and torch.compile without a graph break."""

import pytest
import torch
from op_checks import BLUR, SKEW, normal

from eg3d_ops.bias_act import bias_act
from eg3d_ops.filters import setup_filter
from eg3d_ops.upfirdn2d import upfirdn2d


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # caused by opcheck
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.lengthy
def test_opcheck_bias_act(layout, compiled_cpu):
    x = normal(2, 3, 4, 5).to(memory_format=layout).requires_grad_()
    b, dy = normal(3).requires_grad_(), normal(2, 3, 4, 5, seed=1).requires_grad_()
    ops = torch.ops.eg3d_ops
    for act in (2, 7):
        settings = (1, act, 0.2, 1.5, 0.9)
        torch.library.opcheck(ops.bias_act.default, (x, b, *settings))
        torch.library.opcheck(ops.bias_act_grad.default, (dy, x, b, None, *settings))
    torch.library.opcheck(ops.bias_act_grad.default, (dy, None, None, x.detach(), 1, 2, 0.2, 1.5, 0.9))
    torch.library.opcheck(ops.bias_act_grad.default, (dy, None, None, None, 1, 0, 0.2, 1.5, -1.0))
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")  # it has no gradient
    torch.library.opcheck(ops.bias_act_grad2.default, (dy, dy, x, b, 1, 7, 0.2, 1.5, 0.9), test_utils=tests)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method")  # caused by inductor of torch 2.10
@pytest.mark.parametrize(
    ("backend", "impl"), [("aot_eager", "reference"), ("aot_eager", "compiled"), ("inductor", "compiled")]
)
@pytest.mark.lengthy
def test_torch_compile_bias_act(backend, impl, compiled_cpu):
    def loss(x, b):
        y = bias_act(x * 2, b, act="lrelu", clamp=1.5, impl=impl)
        return (y + bias_act(x, b, act="tanh", impl=impl)).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend=backend, dynamic=False)
    x, b = normal(2, 3, 8, 8).requires_grad_(), normal(3, seed=8).requires_grad_()
    expected = torch.autograd.grad(loss(x, b), (x, b))
    actual = torch.autograd.grad(compiled(x, b), (x, b))
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-5, atol=1e-5)  # sums of 128 numbers near 1, fused differently


@pytest.mark.lengthy
def test_torch_compile_of_any_size_bias_act(compiled_cpu):
    def function(x, b):
        return bias_act(x, b, act="lrelu", impl="compiled")

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
    for n in (3, 5, 8):
        x, b = normal(n, 4, n + 1), normal(4)
        assert torch.equal(compiled(x, b), function(x, b))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # caused by opcheck
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("f", [SKEW, setup_filter([1.0, 2.0, 1.0], separable=True)], ids=["skew", "taps"])
@pytest.mark.lengthy
def test_opcheck_upfirdn2d(layout, f, compiled_cpu):
    x = normal(2, 3, 6, 5).to(memory_format=layout).requires_grad_()
    torch.library.opcheck(torch.ops.eg3d_ops.upfirdn2d.default, (x, f, [2, 1], [1, 2], [1, 2, -1, 3], False, 1.5))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method")  # caused by inductor of torch 2.10
@pytest.mark.parametrize(
    ("backend", "impl"), [("aot_eager", "reference"), ("aot_eager", "compiled"), ("inductor", "compiled")]
)
@pytest.mark.lengthy
def test_torch_compile_upfirdn2d(backend, impl, compiled_cpu):
    def loss(x):
        return (upfirdn2d(x * 2, BLUR, up=2, padding=2, impl=impl) + 1).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend=backend, dynamic=False)
    x = normal(2, 3, 8, 8).requires_grad_()
    (expected,) = torch.autograd.grad(loss(x), x)
    (actual,) = torch.autograd.grad(compiled(x), x)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)  # sums of 16 numbers near 1, fused differently


@pytest.mark.lengthy
def test_torch_compile_of_any_size_upfirdn2d(compiled_cpu):
    def function(x):
        return upfirdn2d(x, BLUR, down=2, padding=1, impl="compiled")

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
    for n in (3, 5, 8):
        x = normal(n, 4, n + 1, n + 2)
        assert torch.equal(compiled(x), function(x))
