"""Identities: the latents that seeds or torch.Generators give, the same on every device."""

from collections.abc import Sequence

import torch
from torch import Tensor

from eg3d_ops._checks import check_int

RandomNumbers = torch.Generator | Sequence[torch.Generator]


def draw_identities(
    seed: int | Sequence[int] | None, generator: RandomNumbers | None, count: int, size: int
) -> tuple[list[int | None], Tensor]:
    """Return seeds (None where a torch.Generator drew) and latents [count, size], drawn on the CPU."""
    if generator is None:
        seeds = _seeds(0 if seed is None else seed, count)
        return [*seeds], torch.cat([_latent(each, size) for each in seeds])
    if seed is not None:
        raise ValueError(f"seed={seed} and generator are given; choose one of them")
    generators = [generator] * count if isinstance(generator, torch.Generator) else list(generator)
    if len(generators) != count or not all(isinstance(each, torch.Generator) for each in generators):
        raise ValueError(f"generator: give one torch.Generator, or a list of {count}, one for each prompt")
    draws = [torch.randn(1, size, generator=each, device=each.device).cpu() for each in generators]
    return [None] * count, torch.cat(draws)


def seeds_of_each(seed: int | Sequence[int], prompts: int, each: int) -> int | Sequence[int]:
    """Return the seeds of `each` portraits of every prompt: the given one and those that follow it."""
    if each == 1 or (isinstance(seed, Sequence) and len(seed) == prompts * each):
        return seed
    firsts = _seeds(seed, prompts)
    return [first + i for first in firsts for i in range(each)]


def _seeds(seed: int | Sequence[int], count: int) -> list[int]:
    seeds = list(seed) if isinstance(seed, Sequence) else [seed] * count
    for each in seeds:
        if check_int("seed", each, 0) >= 2**63:
            raise ValueError(f"seed must be less than 2**63, got {each}")
    if len(seeds) != count:
        raise ValueError(f"{len(seeds)} seeds for {count} prompts; give one for all, or one for each")
    return seeds


def _latent(seed: int, size: int) -> Tensor:  # [1, size]
    """Draw a latent on the CPU, so that it is the same on every device."""
    return torch.randn(1, size, generator=torch.Generator().manual_seed(seed))
