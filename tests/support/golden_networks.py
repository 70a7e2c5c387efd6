"""Weights and inputs of the official networks in tests/golden, as their json describes them."""

import math
import zlib

import numpy as np
import safetensors.torch
import torch
from goldens import load
from places import GOLDEN
from torch import Tensor


def hashfill(salt: str, name: str, shape: list[int], mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Return numbers that depend on (salt, name, index) alone, by the closed form `recipe.words` of the json."""
    k = np.arange(math.prod(shape), dtype=np.uint32)
    h = k * np.uint32(2654435761) + np.uint32(zlib.crc32(f"{salt}:{name}".encode()))
    h ^= h >> np.uint32(16)
    h *= np.uint32(2246822507)
    h ^= h >> np.uint32(13)
    h *= np.uint32(3266489909)
    h ^= h >> np.uint32(16)
    u = (h.astype(np.float64) + 0.5) / 4294967296
    return torch.from_numpy((mean + std * math.sqrt(3) * (2 * u - 1)).astype(np.float32)).reshape(shape)


def state(name: str) -> dict[str, Tensor]:
    """Return the state dict, which is stored as float32, as int8 with a power of two as its scale, or as a recipe."""
    golden = load(name)
    if "recipe" in golden.info:
        return {
            key: _from_recipe(golden.info["recipe"]["salt"], key, r)
            for key, r in golden.info["recipe"]["tensors"].items()
        }
    scales = golden.info.get("int8_scales", {})
    stored = golden.group("state")
    return {key: value.float() * scales[key] if value.dtype == torch.int8 else value for key, value in stored.items()}


def _from_recipe(salt: str, key: str, recipe: dict) -> Tensor:
    if recipe.get("fir"):
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        made = torch.outer(taps, taps) / 64
    else:
        made = hashfill(salt, key, recipe["shape"], recipe["mean"], recipe["std"])
    # Check the json's checksum, so that wrongly generated weights are not mistaken for a wrong network.
    assert math.isclose(made.double().abs().sum().item(), recipe["abs_sum"], rel_tol=1e-9), key
    return made


def outputs(name: str) -> dict[str, Tensor]:
    """Return the outputs of the official network, without the prefix `out/`."""
    own = GOLDEN / f"{name}_out.safetensors"
    tensors = safetensors.torch.load_file(own) if own.exists() else load(name).tensors
    return {key.removeprefix("out/"): value for key, value in tensors.items() if key.startswith("out/")}


def cut(x: Tensor, text: str | None) -> Tensor:
    """Return the part of a tensor that the json names, e.g. "[:, ::12, 1::8, 2::8]". None = the whole tensor."""
    if text is None:
        return x
    fields = text.split("]")[0].strip("[").split(",")
    return x[tuple(slice(*(int(n) if n.strip() else None for n in field.split(":"))) for field in fields)]


def relative(actual: Tensor, expected: Tensor) -> float:
    """Return the largest difference divided by the largest value."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    return ((actual.detach() - expected).abs().max() / expected.abs().max()).item()
