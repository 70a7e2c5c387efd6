"""Tests that run on the CPU everywhere, and also on a GPU where there is one."""

import pytest

on_devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
