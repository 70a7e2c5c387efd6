"""Tests of written files: their permissions."""

import os
import stat
from pathlib import Path

import pytest
import torch

from dreamportrait.weights.folder import write_tensors


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002])
def test_weights_have_the_permissions_that_the_umask_allows(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_tensors(tmp_path / "weights.safetensors", {"x": torch.zeros(2)})
        assert os.umask(mask) == mask  # reading it did not change it
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "weights.safetensors").stat().st_mode) == 0o666 & ~mask
