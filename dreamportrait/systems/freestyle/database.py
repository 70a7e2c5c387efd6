"""A database of many styles, to tune H for edited fronts of any style: photo and instruction, one edit, one pass.

It joins a few-shot set for each style, and heads that were not edited, so that H does not forget plain ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.systems.freestyle.fewshot import FewShot, FewShotSettings, build, draw_heads, to_pixels
from dreamportrait.systems.freestyle.instruct import InstructPix2Pix

UNEDITED = "the head as it is"


def build_database(
    generator: TriPlaneGenerator,
    editor: InstructPix2Pix,
    styles: Sequence[str],
    settings: FewShotSettings,  # of each style; every style gets other identities
    out: Path,  # OUT/00, OUT/01, ... are the sets
    report: Callable[[int], object] = lambda count: None,  # called with the number of views that were added
) -> FewShot:
    """Build the sets of all styles, or continue to, and return them with as many unedited heads as a style has."""
    sets = [
        build(generator, editor, [name], turned(settings, number), out / f"{number:02}", report=report)
        for number, name in enumerate(styles)
    ]
    return joined([*sets, unedited(generator, turned(settings, len(styles)))])


def turned(settings: FewShotSettings, number: int) -> FewShotSettings:
    """Return the settings for the set of this number: its identities follow those of the sets before it."""
    return replace(settings, seed=settings.seed + number * settings.identities)


@torch.no_grad()
def unedited(generator: TriPlaneGenerator, settings: FewShotSettings) -> FewShot:
    """Return the generator's own views of heads, as a set."""
    seeds = [settings.seed + k for k in range(settings.identities)]
    cameras, pictures = settings.cameras(generator.config), []
    for seed in seeds:
        head = draw_heads(generator, [seed], settings.truncation)
        pictures.append(torch.cat([to_pixels(view.colors) for view in head.views(cameras)]))
    clipped = torch.zeros(len(seeds), len(cameras))
    return FewShot(torch.stack(pictures), cameras, [UNEDITED] * len(seeds), seeds, settings.truncation, clipped)


def joined(sets: Sequence[FewShot]) -> FewShot:
    """Return the identities of all sets as one set. Raise ValueError if the cameras or the truncation differ."""
    first = sets[0]
    for each in sets:
        if not torch.equal(each.cameras, first.cameras) or each.truncation != first.truncation:
            raise ValueError("sets with other cameras or another truncation cannot be joined; build them alike")

    def stacked(name: str) -> Tensor:
        return torch.cat([getattr(each, name) for each in sets])

    return replace(
        first,
        pixels=stacked("pixels"),
        styles=[style for each in sets for style in each.styles],
        seeds=[seed for each in sets for seed in each.seeds],
        saturated=stacked("saturated"),
    )
