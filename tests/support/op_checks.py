"""Steps shared by the tests of the pointwise ops."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from eg3d_ops.filters import setup_filter

IMPLS = ("reference", "compiled")

BLUR = setup_filter([1, 3, 3, 1])  # [4, 4], the filter of StyleGAN networks
SKEW = torch.tensor([[1.0, 2.0, 0.5], [0.25, -3.0, 1.0], [2.0, 1.0, 4.0], [0.5, 1.5, 1.0]])  # not separable
NETWORK = {  # how the generator and the discriminator call upfirdn2d
    "blur": {"padding": 1, "gain": 4},
    "up 2": {"up": 2, "padding": [2, 1, 2, 1], "gain": 4},
    "down 2": {"down": 2, "padding": 1},
    "before strided convolution": {"padding": 2},
}


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def derivatives(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], rounded: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    """Return the value, its gradients along a random cotangent, and the gradients of a random projection of those.

    The cotangents are rounded to the type `rounded`, so that they are the same for runs in different types.
    """

    def cotangent(t: Tensor, seed: int) -> Tensor:
        return normal(*t.shape, seed=seed).to(rounded).to(t.device, t.dtype)

    inputs = [t.detach().clone(memory_format=torch.preserve_format).requires_grad_() for t in inputs]
    y = function(*inputs)
    dy = cotangent(y, 1).requires_grad_()
    first = torch.autograd.grad(y, inputs, dy, create_graph=True)
    second = second_derivatives([*inputs, dy], first, [cotangent(d, 2 + i) for i, d in enumerate(first)])
    names = ["y"] + [f"d{i}" for i in range(len(inputs))] + [f"dd{i}" for i in range(len(inputs))] + ["ddy"]
    return {name: value.detach() for name, value in zip(names, [y, *first, *second], strict=True)}


def second_derivatives(inputs: Sequence[Tensor], first: Sequence[Tensor], cotangents: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradients of sum(first * cotangents), with zeros for inputs on which the sum does not depend."""
    second = torch.autograd.grad(first, inputs, cotangents, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(t) if d is None else d for t, d in zip(inputs, second, strict=True)]


def assert_derivatives_close(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Assert that errors are at most `tolerance` times the largest number of each tensor, in float64."""
    assert actual.keys() == expected.keys()
    for name, want in expected.items():
        have = actual[name]
        assert have.shape == want.shape, name
        if want.numel() == 0:
            continue
        want = want.double().cpu()
        error, size = (have.double().cpu() - want).abs().max(), want.abs().max()
        assert error <= tolerance * size.clamp(min=1e-30), f"{name}: off by {error:.2e} of {size:.2e}"
