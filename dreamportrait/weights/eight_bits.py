"""Tensors as eight-bit numbers with a scale each, for small files.

    x = scale * q,  q in -127 .. 127

The scales of all tensors are one more tensor, in the order of their names.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

SCALES = "scales"
_LARGEST = 127


def packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return int8 tensors and their scales, which are float16: packing what `unpacked` returned changes nothing."""
    names = sorted(tensors)
    scales = torch.stack([tensors[name].abs().amax().float() / _LARGEST for name in names]).half()
    steps = torch.where(scales > 0, scales, torch.ones_like(scales)).float()
    parts = [tensors[name] / step for name, step in zip(names, steps, strict=True)]
    found = {
        name: part.round().clamp(-_LARGEST, _LARGEST).to(torch.int8) for name, part in zip(names, parts, strict=True)
    }
    return found | {SCALES: scales}


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a file as float32. One without scales is returned as it is."""
    if SCALES not in tensors:
        return dict(tensors)
    names = sorted(name for name in tensors if name != SCALES)
    scales = tensors[SCALES].float()
    if scales.shape != (len(names),) or any(tensors[name].dtype != torch.int8 for name in names):
        raise ValueError(f"{SCALES} {list(scales.shape)} does not fit {len(names)} tensors of eight-bit numbers")
    return {name: scale * tensors[name].float() for name, scale in zip(names, scales, strict=True)}
