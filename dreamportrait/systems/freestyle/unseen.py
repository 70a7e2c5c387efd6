"""Scores on faces that no style was learnt on: the generator's own, of other seeds.

unseen_scores      of a learnt style
instant_scores     of an instruction alone: one edit of the front, one pass, and a refinement
mixing_scores      of the way from one learnt style to another
"""

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dreamportrait.eg3d.planes import Planes
from dreamportrait.systems.freestyle.adapter import StyleAdapter
from dreamportrait.systems.freestyle.evaluation import largest_step, measure
from dreamportrait.systems.freestyle.fewshot import draw_heads
from dreamportrait.systems.freestyle.generator import PictureTo3D
from dreamportrait.systems.freestyle.judges import Judges, known_style
from dreamportrait.systems.freestyle.mixing import mix
from dreamportrait.systems.freestyle.pipeline import StylePipeline
from dreamportrait.systems.freestyle.refine import REFINEMENT, Refinement

BATCH = 16  # heads that are measured at once
Make = Callable[[Tensor, int], Planes]  # a front [1, 3, R, R] and its seed -> one styled head


def unseen_scores(
    pipe: StylePipeline, adapter: StyleAdapter, judges: Judges, seeds: Sequence[int], truncation: float = 1.0
) -> dict[str, float]:
    """Return the mean scores of a learnt style, and the seconds from a front to a head."""
    if taken := set(adapter.about.seeds) & {str(seed) for seed in seeds}:
        raise ValueError(f"the style was learnt on the face of seed {min(taken)}; choose other seeds with --seed")
    styled = PictureTo3D(adapter.applied(pipe.base.i2t), pipe.base.generator)

    def make(front: Tensor, seed: int) -> Planes:
        return styled.heads(pipe.read_by(adapter, front, seed))

    return scores_of(pipe, adapter.about.styles[0], judges, seeds, make, truncation)


def instant_scores(
    pipe: StylePipeline,
    words: str,
    judges: Judges,
    seeds: Sequence[int],
    truncation: float = 1.0,
    refinement: Refinement = REFINEMENT,
) -> dict[str, float]:
    """Return the mean scores of a style that is asked for in words, and the seconds from a front to a head."""
    how = pipe.model.few_shot
    told = how.wording.instruct(words)

    def make(front: Tensor, seed: int) -> Planes:
        return pipe.instant_heads(front, [told], how.sampling, seed, refinement)

    return scores_of(pipe, words, judges, seeds, make, truncation)


@torch.no_grad()
def scores_of(
    pipe: StylePipeline, words: str, judges: Judges, seeds: Sequence[int], make: Make, truncation: float
) -> dict[str, float]:
    """Draw a face for each seed, style its front, and return the mean of each score."""
    found, counts, seconds = [], [], 0.0
    camera = pipe.base.generator.config.around([0.0]).to(pipe.device)
    for start in range(0, len(seeds), BATCH):
        part = list(seeds[start : start + BATCH])
        plain = draw_heads(pipe.base.generator, part, truncation)
        fronts = plain.view(camera.expand(len(part), -1)).image.clamp(-1, 1)
        began = time.perf_counter()
        heads = joined([make(front[None], seed) for seed, front in zip(part, fronts, strict=True)])
        seconds += time.perf_counter() - began
        found.append(measure(heads, fronts, words, known_style(words), judges.reader, judges.scorer).as_dict())
        counts.append(len(part))
    sums = {name: sum(n * each[name] for n, each in zip(counts, found, strict=True)) for name in found[0]}
    return {name: total / len(seeds) for name, total in (sums | {"seconds": seconds}).items()}


@torch.no_grad()
def mixing_scores(
    pipe: StylePipeline, first: StyleAdapter, second: StyleAdapter, seed: int, steps: int = 5, truncation: float = 1.0
) -> dict[str, float]:
    """Return how even the way from one style to another is, and whether its ends are the pure styles, to the bit."""
    base, adapters = pipe.base, (first, second)
    camera = base.generator.config.around([0.0]).to(pipe.device)
    front = draw_heads(base.generator, [seed], truncation).view(camera).image.clamp(-1, 1)
    fronts = [pipe.read_by(adapter, front, seed) for adapter in adapters]
    shares = [i / (steps - 1) for i in range(steps)]
    way = [mix(base, adapters, [1 - share, share], fronts) for share in shares]
    ends = zip((way[0], way[-1]), adapters, fronts, strict=True)
    pure = [
        torch.equal(end.planes, PictureTo3D(adapter.applied(base.i2t), base.generator).heads(read).planes)
        for end, adapter, read in ends
    ]
    images = torch.cat([head.view(camera).image for head in way])
    return {"largest_step": largest_step(images), "ends_are_pure": float(all(pure))}


def joined(heads: Sequence[Planes]) -> Planes:
    """Return several heads of one generator as one batch."""
    planes, ws = (torch.cat([getattr(head, name) for head in heads]) for name in ("planes", "ws"))
    return Planes(heads[0].generator, planes, ws)
