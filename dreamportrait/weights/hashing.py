"""The identity of a network's weights."""

import hashlib

import torch
from torch import nn


def weights_hash(network: nn.Module) -> str:
    """Return the SHA-256 of the names, types and values of all weights. It does not depend on the file format."""
    found = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        found.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
