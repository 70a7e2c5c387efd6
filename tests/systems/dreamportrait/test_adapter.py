"""Tests of the gated cross-attention adapter: formula, start of training, padding, memory and precision."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dreamportrait.systems.dreamportrait.adapter import GatedCrossAttention
from dreamportrait.systems.dreamportrait.pooling import columns, same_pixels
from eg3d_ops.planes import PLANE_AXES

CHANNELS, TEXT, DIM, HEADS, SIZE, LENGTH = 5, 7, 8, 2, 4, 6
MASK = torch.arange(LENGTH) < torch.tensor([[6], [3], [2]])


def make(trained: bool = True, axes: str = "official", **settings: bool) -> GatedCrossAttention:
    torch.manual_seed(0)
    adapter = GatedCrossAttention(CHANNELS, TEXT, PLANE_AXES[axes], DIM, HEADS, **settings)
    if trained:
        for parameter in adapter.parameters():
            nn.init.normal_(parameter)
    return adapter


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(3, CHANNELS, SIZE, SIZE)


@pytest.fixture
def words() -> Tensor:
    torch.manual_seed(2)
    return torch.randn(3, LENGTH, TEXT)


def written_out(adapter: GatedCrossAttention, x: Tensor, words: Tensor, mask: Tensor) -> Tensor:
    """Compute equation 3 by hand: expand everything to full size, concatenate and multiply."""

    def linear(layer: nn.Module, y: Tensor) -> Tensor:
        return y @ layer.weight.T / y.shape[-1] ** 0.5 + layer.bias

    def normal(y: Tensor) -> Tensor:
        return (y - y.mean(-1, keepdim=True)) / (y.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()

    planes = linear(adapter.read, x.movedim(1, -1)).split(DIM, -1)
    others = columns(planes, adapter.axes) if adapter.pooling else same_pixels(planes)
    attended = []
    for own, (first, second) in zip(planes, others, strict=True):
        seen = torch.cat([normal(part).expand(own.shape) for part in (own, first, second)], -1)  # [N, H, W, 3d]
        q, k, v = linear(adapter.query, seen), linear(adapter.key, words), linear(adapter.value, words)
        out = torch.zeros_like(q)
        for head in range(HEADS):
            part = slice(head * DIM // HEADS, (head + 1) * DIM // HEADS)
            scores = torch.einsum("nhwc,nlc->nhwl", q[..., part], k[..., part]) / math.sqrt(DIM / HEADS)
            attention = scores.masked_fill(~mask[:, None, None], -math.inf).softmax(-1)
            out[..., part] = torch.einsum("nhwl,nlc->nhwc", attention, v[..., part])
        attended.append(out)
    features = linear(adapter.write, torch.cat(attended, -1)).movedim(-1, 1)
    return x + (adapter.beta * torch.tanh(adapter.gamma) if adapter.gated else 1) * features


@pytest.mark.parametrize("axes", list(PLANE_AXES))
@pytest.mark.parametrize("pooling", [True, False])
@pytest.mark.parametrize("gated", [True, False])
def test_formula(x, words, axes, pooling, gated):
    adapter = make(axes=axes, pooling=pooling, gated=gated)
    torch.testing.assert_close(adapter(x, words, MASK), written_out(adapter, x, words, MASK), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_fresh_one_changes_nothing(x, words, gated, layout):
    x = x.contiguous(memory_format=layout)
    out = make(trained=False, gated=gated)(x, words, MASK)
    assert torch.equal(out, x) and out.stride() == x.stride()


def moving(adapter: GatedCrossAttention, x: Tensor, words: Tensor) -> set[str]:
    """Return the names of the parameters whose gradient is not zero."""
    adapter.zero_grad()
    (adapter(x, words, MASK) * torch.randn(x.shape)).sum().backward()
    return {name for name, p in adapter.named_parameters() if p.grad.any()}


def test_what_learns_at_the_start(x, words):
    """At first only gamma learns, because all other parameters act through tanh(gamma) = 0. Then all learn.

    The key's bias never learns: it adds the same number to all scores of a query, which the softmax cancels.
    """
    adapter = make(trained=False)
    everything = set(dict(adapter.named_parameters())) - {"key.bias"}
    assert moving(adapter, x, words) == {"gamma"}
    with torch.no_grad():
        adapter.gamma += 0.01
    assert moving(adapter, x, words) - {"key.bias"} == everything


def test_what_learns_at_the_start_without_a_gate(x, words):
    adapter = make(trained=False, gated=False)
    everything = set(dict(adapter.named_parameters())) - {"key.bias"}
    assert moving(adapter, x, words) == {"write.weight", "write.bias"}
    with torch.no_grad():
        adapter.write.weight += 0.01 * torch.randn(adapter.write.weight.shape)
    assert moving(adapter, x, words) - {"key.bias"} == everything


def test_padding_has_no_influence(x, words):
    adapter = make()
    words.requires_grad_()
    out = adapter(x, words, MASK)
    other = torch.where(MASK[..., None], words, 100.0)
    assert torch.equal(adapter(x, other, MASK), out)
    (gradient,) = torch.autograd.grad(out.sum(), words)
    assert not gradient[~MASK].any() and gradient[MASK].any(-1).all()
    # Without the padding the result is the same, but summed in another order.
    torch.testing.assert_close(adapter(x[1:], words[1:, :3], MASK[1:, :3]), out[1:], rtol=1e-5, atol=1e-5)


def test_each_sample_has_its_own_words(x, words):
    adapter = make()
    out = adapter(x, words, MASK)
    words[1, 0] += 1
    changed = (adapter(x, words, MASK) != out).flatten(1).any(1)
    assert changed.tolist() == [False, True, False]


@pytest.mark.parametrize("pooling", [True, False])
def test_a_place_is_seen_along_its_row_and_column(x, words, pooling):
    """A change of the pixel at row 1, column 2 must change the result on XY, YZ, ZX only where this pixel is seen."""
    adapter = make(axes="xy_yz_zx", pooling=pooling)
    changed = x.clone()
    changed[:, :, 1, 2] += 1
    places = (adapter(changed, words, MASK) != adapter(x, words, MASK)).any(1)[0]
    expected = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    expected[1, 2] = True
    if pooling:  # pooled columns along the height change row 2, pooled columns along the width column 1
        expected[2] = expected[:, 1] = True
    assert torch.equal(places, expected)


class LargestTensor(TorchDispatchMode):
    """Records how many numbers the largest result of any operation has, gradients included."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, Tensor):
                self.numbers = max(self.numbers, value.untyped_storage().nbytes() // value.element_size())
        return out


@pytest.mark.lengthy
def test_no_matrix_of_attention():
    """At 256 x 256 and 77 words no tensor may be larger than the tokens; scores would be 19 times as large."""
    torch.manual_seed(0)
    size, length = 256, 77
    adapter = GatedCrossAttention(CHANNELS, TEXT, PLANE_AXES["official"], DIM, HEADS)
    x = torch.randn(1, CHANNELS, size, size, requires_grad=True)
    words, mask = torch.randn(1, length, TEXT), torch.arange(length)[None] < 50
    with LargestTensor() as largest:
        adapter(x, words, mask).sum().backward()
    tokens = 3 * size * size
    assert largest.numbers == tokens * DIM < tokens * length * HEADS


def test_low_precision(x, words):
    """The parameters stay float32. bfloat16 has 8 significant bits, so the error is that of a few roundings."""
    adapter = make()
    out = adapter(x.bfloat16(), words, MASK)
    assert out.dtype == torch.bfloat16
    expected = adapter(x, words, MASK)
    assert (out.float() - expected).norm() < 0.03 * expected.norm()


def test_needs_three_planes():
    with pytest.raises(ValueError, match="need three planes"):
        GatedCrossAttention(CHANNELS, TEXT, ((0, 1), (1, 2)))
