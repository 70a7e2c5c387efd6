"""Tests of the rule for float32 on a GPU: programs forbid TF32, and measurements say what applied."""

from collections.abc import Iterator

import pytest
import torch

from dreamportrait.core.machine import environment, find_device
from dreamportrait.core.precision import exact_float32, float32_rule

SWITCHES = {"convolutions": torch.backends.cudnn, "matrix products": torch.backends.cuda.matmul}


@pytest.fixture(autouse=True)
def _tf32_everywhere() -> Iterator[None]:
    for switch in SWITCHES.values():
        switch.allow_tf32 = True
    yield
    exact_float32()


@pytest.mark.parametrize("allowed", SWITCHES)
def test_the_rule_says_where_tf32_applies(allowed: str) -> None:
    assert float32_rule() == "tf32 in convolutions, matrix products"
    for name, switch in SWITCHES.items():
        switch.allow_tf32 = name == allowed
    assert float32_rule() == f"tf32 in {allowed}"
    exact_float32()
    assert float32_rule() == "exact"


def test_programs_forbid_tf32_when_they_choose_their_device() -> None:
    assert find_device("cpu") == "cpu"
    assert float32_rule() == "exact"


def test_the_rule_is_recorded() -> None:
    assert environment()["float32"] == "tf32 in convolutions, matrix products"
    exact_float32()
    assert environment()["float32"] == "exact"
