"""Networks whose weights rest while others learn through them."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def resting(module: nn.Module) -> Iterator[None]:
    """Freeze a module's weights inside the `with` block. Gradients still pass through the module to its inputs."""
    moving = [p for p in module.parameters() if p.requires_grad]
    for p in moving:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in moving:
            p.requires_grad_(True)
