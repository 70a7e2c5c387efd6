"""Tests of the semantics mapper: its formula, the start of its training, and what it can learn."""

import pytest
import torch
import torch.nn.functional as F

from dreamportrait.eg3d.layers import FullyConnected
from dreamportrait.systems.dreamportrait.mapper import SemanticsMapper

W, TEXT, BATCH = 6, 5, 3


@pytest.fixture
def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(BATCH, W), torch.randn(BATCH, TEXT)


def make(plain: bool = False, trained: bool = False) -> SemanticsMapper:
    torch.manual_seed(0)
    mapper = SemanticsMapper(W, TEXT, plain)
    if trained:
        for weight in (*mapper.parameters(), *mapper.buffers()):
            torch.nn.init.normal_(weight)
    return mapper


def test_a_fresh_one_changes_nothing(inputs):
    w, eot = inputs
    assert torch.equal(make()(w, eot), w)
    # The plain one adds and removes a shift of 14, so a coordinate is rounded as numbers of that size are.
    torch.testing.assert_close(make(plain=True)(w, eot), w, rtol=0, atol=1e-5)


@pytest.mark.parametrize("plain", [False, True])
def test_formula(inputs, plain):
    """Compute the formula by hand: two layers on text of unit mean square, two on style, and a last layer on both.

    All layers except the last have a leaky ReLU of gain sqrt 2. Unless the mapper is plain, the last layer also sees
    the products of text and style, and the step it returns is in units of the spread of w.
    """
    w, eot = inputs
    mapper = make(plain, trained=True)

    def layer(name: str, x: torch.Tensor) -> torch.Tensor:
        weight, bias = getattr(mapper, name).weight, getattr(mapper, name).bias
        return x @ weight.T / x.shape[1] ** 0.5 + bias

    def active(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(layer(name, x), 0.2) * 2**0.5

    text = active("text1", active("text0", eot / eot.square().mean(1, keepdim=True).sqrt()))
    style = active("style1", active("style0", w))
    fused = layer("fuse", torch.cat([text, style] if plain else [text, style, text * style], 1))
    torch.testing.assert_close(mapper(w, eot), fused if plain else w + fused @ mapper.spread)
    torch.testing.assert_close(mapper.offset(w, eot), fused)
    assert sum(isinstance(part, FullyConnected) for part in mapper.children()) == 5


@pytest.mark.lengthy
def test_text_exchanges_what_it_speaks_of():
    """The mapper must learn to set one of two numbers of w to 1 and to keep the other; the text selects the number.

    No sum of a function of the text and a function of the style can do that, so the plain mapper fails.
    """
    torch.manual_seed(2)
    mapper, plain = make(), make(plain=True)
    w, first = torch.randn(256, W), torch.rand(256, 1) < 0.5
    eot = torch.where(first, torch.eye(TEXT)[0], torch.eye(TEXT)[1])
    wanted = torch.where(torch.cat([first, ~first], 1), torch.ones([]), w[:, :2])

    def error(made: SemanticsMapper) -> float:
        optimizer = torch.optim.Adam(made.parameters(), 0.02)
        for _ in range(400):
            optimizer.zero_grad()
            loss = (made(w, eot)[:, :2] - wanted).square().mean()
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    assert error(mapper) < 0.1 * error(plain)


def test_each_sample_has_its_own_text(inputs):
    w, eot = inputs
    mapper = make(trained=True)
    before, after = mapper(w, eot), mapper(w, eot + torch.tensor([0.0, 1.0, 0.0])[:, None])
    assert torch.equal(before[0], after[0]) and torch.equal(before[2], after[2])
    assert not torch.allclose(before[1], after[1])


@pytest.mark.parametrize("plain", [False, True])
def test_what_learns_at_the_start(inputs, plain):
    """In the first step layers behind weights of zero do not learn: all but the last, or those on text if plain."""
    w, eot = inputs
    mapper = make(plain)
    style = {f"style{i}.{part}" for i in (0, 1) for part in ("weight", "bias")}
    for first in (True, False):
        mapper.zero_grad()
        (mapper(w, eot) - 1).square().sum().backward()
        moving = {name for name, p in mapper.named_parameters() if p.grad is not None and p.grad.any()}
        begun = {"fuse.weight", "fuse.bias"} | (style if plain else set())
        assert moving == (begun if first else set(dict(mapper.named_parameters())))
        with torch.no_grad():
            mapper.fuse.weight -= 0.1 * mapper.fuse.weight.grad


def test_features_stored_in_half_precision(inputs):
    w, eot = inputs
    mapper = make(trained=True)
    assert mapper(w, eot.half()).dtype == torch.float32
    torch.testing.assert_close(mapper(w, eot.half()), mapper(w, eot), rtol=0, atol=1e-2)  # 11 significant bits
