"""Tests that run on the CPU everywhere, and also on a GPU where there is one."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

on_devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])


@contextmanager
def no_synchronisation() -> Iterator[None]:
    """Raise an error where the block waits for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
