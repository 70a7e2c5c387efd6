"""Scores of a learnt style on faces that it has not seen: the generator's own, of other seeds."""

import time
from collections.abc import Sequence

import torch

from dreamportrait.eg3d.planes import Planes
from dreamportrait.systems.freestyle.adapter import StyleAdapter
from dreamportrait.systems.freestyle.evaluation import measure
from dreamportrait.systems.freestyle.fewshot import draw_heads
from dreamportrait.systems.freestyle.generator import PictureTo3D
from dreamportrait.systems.freestyle.judges import Judges, known_style
from dreamportrait.systems.freestyle.pipeline import StylePipeline

BATCH = 16  # heads that are measured at once


@torch.no_grad()
def unseen_scores(
    pipe: StylePipeline, adapter: StyleAdapter, judges: Judges, seeds: Sequence[int], truncation: float = 1.0
) -> dict[str, float]:
    """Return the mean scores of styled heads, and the seconds from a front to a head."""
    if taken := set(adapter.about.seeds) & {str(seed) for seed in seeds}:
        raise ValueError(f"the style was learnt on the face of seed {min(taken)}; choose other seeds with --seed")
    words, found, counts, seconds = adapter.about.styles[0], [], [], 0.0
    style = known_style(words)
    styled = PictureTo3D(adapter.applied(pipe.base.i2t), pipe.base.generator)
    front = pipe.base.generator.config.around([0.0]).to(pipe.device)
    for start in range(0, len(seeds), BATCH):
        part = list(seeds[start : start + BATCH])
        plain = draw_heads(pipe.base.generator, part, truncation)
        fronts = plain.view(front.expand(len(part), -1)).image.clamp(-1, 1)
        began, heads = time.perf_counter(), []
        for seed, each in zip(part, fronts, strict=True):
            heads.append(styled.heads(pipe.read_by(adapter, each[None], seed)))
        seconds += time.perf_counter() - began
        found.append(measure(joined(heads), fronts, words, style, judges.reader, judges.scorer).as_dict())
        counts.append(len(part))
    means = {name: sum(n * each[name] for n, each in zip(counts, found, strict=True)) for name in found[0]}
    return {name: total / len(seeds) for name, total in means.items()} | {"seconds": seconds / len(seeds)}


def joined(heads: Sequence[Planes]) -> Planes:
    """Return several heads of one generator as one batch."""
    planes, ws = (torch.cat([getattr(head, name) for head in heads]) for name in ("planes", "ws"))
    return Planes(heads[0].generator, planes, ws)
