"""Tests of tensors in eight bits."""

import pytest
import torch

from dreamportrait.weights.eight_bits import SCALES, packed, unpacked

NUMBERS = torch.Generator().manual_seed(0)
TENSORS = {"b": torch.randn(3, 4, generator=NUMBERS), "a": 100 * torch.randn(5, generator=NUMBERS), "c": torch.zeros(2)}


def test_numbers_are_rounded_to_steps_of_their_tensors_scale():
    found = packed({"x": torch.tensor([-2.0, 0.5, 0.004, 1.0])})
    assert found["x"].tolist() == [-127, 32, 0, 64] and found[SCALES].item() == pytest.approx(2 / 127, rel=1e-3)
    again = unpacked(packed(TENSORS))
    assert set(again) == set(TENSORS) and not again["c"].any()
    for name, x in TENSORS.items():  # half a step; scales in half precision are off by up to a 2000th
        assert float((again[name] - x).abs().max()) <= float(x.abs().max()) * (0.5 / 127 + 1 / 2000)


def test_packing_again_changes_nothing():
    once = unpacked(packed(TENSORS))
    twice = unpacked(packed(once))
    assert all(torch.equal(once[name], twice[name]) for name in TENSORS)


def test_files_without_scales_stay_and_wrong_ones_are_refused():
    assert unpacked(TENSORS) == TENSORS
    with pytest.raises(ValueError, match=r"scales .1. does not fit 3 tensors"):
        unpacked(TENSORS | {SCALES: torch.ones(1)})
    with pytest.raises(ValueError, match="eight-bit"):
        unpacked(TENSORS | {SCALES: torch.ones(3)})
