"""Tests of what the processor is asked."""

import pytest
import torch

from dreamportrait.core import machine


@pytest.mark.parametrize(
    ("line", "fast"),
    [
        ("flags\t\t: fpu avx512f avx512_vnni amx_bf16 amx_tile", True),
        ("flags\t\t: fpu avx512f avx512_bf16", True),
        ("Features\t: fp asimd bf16", True),
        ("flags\t\t: fpu avx512f avx512bw avx512_vnni", False),  # oneDNN emulates it here
        ("model name\t: bf16", False),
    ],
)
def test_bfloat16_is_used_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch, line: str, fast: bool) -> None:
    monkeypatch.setattr(machine, "_lines", lambda path: ["processor\t: 0", line])
    assert machine.has_bfloat16() == fast
    layer = torch.nn.Linear(2, 2)
    with machine.autocast("cpu"):
        assert layer(torch.ones(1, 2)).dtype == (torch.bfloat16 if fast else torch.float32)
