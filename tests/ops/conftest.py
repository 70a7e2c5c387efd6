"""Fixtures for tests of the ops."""

import sys

import pytest
from cuda_emulator import emulated

from eg3d_ops import _build


@pytest.fixture(scope="session")
def ops():
    """Return torch.ops.eg3d_emulated, the CUDA sources on a CPU."""
    if sys.platform != "linux":
        pytest.skip("the emulator switches between stacks in a way only tried on Linux")
    try:
        _build.find_cxx()
    except _build.BuildError as error:
        pytest.skip(f"the emulator needs a C++ compiler: {error}")
    return emulated.load()[0]
