"""Tests of low-rank deltas."""

import pytest
import torch

from dreamportrait.weights.lora import LowRank, LowRankDeltas

SHAPES = {"a.weight": (5, 3, 2, 2), "b": (4, 6)}


def test_deltas_start_at_zero_and_have_low_rank():
    made = LowRankDeltas(SHAPES, 2, seed=0)
    assert {name: tuple(delta.shape) for name, delta in made().items()} == SHAPES
    assert not any(delta.any() for delta in made().values())
    for part in made.parts.values():
        torch.nn.init.normal_(part.up)
    assert all(int(torch.linalg.matrix_rank(delta.flatten(1))) == 2 for delta in made().values())
    assert sum(p.numel() for p in made.parameters()) == 2 * (5 + 12) + 2 * (4 + 6)
    factors = made.factors()
    torch.testing.assert_close(factors["b.up"] @ factors["b.down"], made()["b"])
    assert set(factors) == {f"{name}.{part}" for name in SHAPES for part in ("down", "up")}
    first, again = (LowRankDeltas(SHAPES, 2, seed=0).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_applied_to_inputs_they_are_the_product():
    made = LowRank(4, 6, 2, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(made.up)
    x = torch.randn(7, 6)
    torch.testing.assert_close(made.apply_to(x), x @ made.product().T)


def test_rank_0_is_refused():
    with pytest.raises(ValueError, match="rank=0: must be at least 1"):
        LowRankDeltas(SHAPES, 0, seed=0)
