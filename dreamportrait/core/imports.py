"""Faster starts and ends of programs that import the packages of training."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def only_imports() -> Iterator[None]:
    """Import without collecting garbage, and leave what is imported out of later collections.

    PyTorch, diffusers and Lightning make half a million objects that live as long as the process. Looking through them
    again and again took 4 of 15 seconds. In a process that has imported PyTorch before, nothing changes: it may hold
    garbage, which would be kept for ever.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
