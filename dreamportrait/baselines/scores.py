"""Scores of the heads of one method and seed. They are those of metrics/scores.py, for few prompts.

Two things differ, because a head of a baseline takes a minute. The distance and sharpness use all views of the heads
of the evaluation captions, where `dreamportrait evaluate` makes further heads. R-Precision chooses from the captions
of 100 pictures of the data set, though only few of them get a head.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import median
from typing import Any

import torch
from torch import Tensor

from dreamportrait.baselines.heads import FRONT, VIEWS, Seen, stacked
from dreamportrait.data.dataset import Pictures
from dreamportrait.geometry.images import from_bytes
from dreamportrait.metrics.extractors import Extractor, Judge
from dreamportrait.metrics.frechet import Moments, Sums, frechet_distance
from dreamportrait.metrics.oracle import Oracle, OracleScore
from dreamportrait.metrics.r_precision import RPrecision, first_places, wilson
from dreamportrait.metrics.scores import Agreement, agreement, encoded
from dreamportrait.metrics.sharpness import RealPatches, Sharpness, sharpness
from dreamportrait.metrics.statistics import RealStatistics
from dreamportrait.metrics.subject import SubjectConfig

CANDIDATES = 100  # captions that R-Precision chooses from, as in `dreamportrait evaluate`
REAL = 2000  # pictures that distances are to, if the data set has as many


@dataclass(frozen=True)
class Measured:
    fid: float
    sharpness: Sharpness
    msc: float
    r_precision: RPrecision
    oracle: OracleScore | None
    consistency: Agreement
    seconds: float  # median over prompts, see heads.Cost
    busy: float
    peak_mb: float  # largest of all prompts

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"consistency": self.consistency._asdict()}


@dataclass(frozen=True)
class Yardstick:
    """What heads are compared with. Computed once for all methods."""

    pictures: Pictures
    judge: Judge
    extractor: Extractor
    oracle: Oracle | None
    config: SubjectConfig
    count: int  # heads of each method and seed

    @cached_property
    def moments(self) -> Moments:
        count = min(REAL, len(self.pictures))
        return RealStatistics(self.pictures, self.extractor, count, "all").moments(self.pictures.resolution)

    @cached_property
    def patches(self) -> RealPatches:
        return RealPatches(self.pictures.image, len(VIEWS) * self.count, len(self.pictures))

    @cached_property
    def words(self) -> Tensor:  # [K, C] of captions that R-Precision chooses from
        count = min(max(CANDIDATES, self.count), len(self.pictures))
        return encoded(self.judge.scorer, [self.pictures.evaluation_caption(i) for i in range(count)])

    def distance(self, images: Tensor) -> float:  # [M, 3, R, R]
        return frechet_distance(self.moments, Sums.of(self.extractor.features(images)).moments())

    @cached_property
    def floor(self) -> float:
        """The distance of as many real pictures, the last of the data set: the least to expect of so few."""
        last = range(len(self.pictures) - len(VIEWS) * self.count, len(self.pictures))
        return self.distance(from_bytes(torch.stack([self.pictures.image(i) for i in last])))


@torch.no_grad()
def measure(heads: Sequence[Seen], yard: Yardstick) -> Measured:
    """Measure the heads of the first N evaluation captions."""
    if len(heads) != yard.count:
        raise ValueError(f"{len(heads)} heads, {yard.count} prompts: give one head for each prompt")
    numbers, views, judge = list(range(len(heads))), stacked(heads), yard.judge.scorer
    seen = torch.stack([judge.image_features(view.image) for view in views], 1).float().cpu()  # [N, V, C]
    own = yard.words[: len(heads), None]
    images = torch.cat([view.image for view in views])  # [V N, 3, R, R]
    turned = [(v, yard.config.around([angle]).expand(len(heads), -1)) for v, angle in zip(views, VIEWS, strict=True)]
    shown = None if yard.oracle is None else yard.oracle.judge(views[FRONT].image, numbers)
    costs = [head.cost for head in heads]
    return Measured(
        fid=yard.distance(images),
        sharpness=sharpness(images, yard.patches)["all"],
        msc=float((seen.double() * own.double()).sum(2).mean() * 100),
        r_precision=nearest(seen[:, FRONT], yard.words),
        oracle=None if yard.oracle is None or shown is None else OracleScore.of(shown, yard.oracle.names),
        consistency=Agreement(*agreement(yard.config, turned, FRONT).double().mean(0).tolist()),
        seconds=median(cost.seconds for cost in costs),
        busy=median(cost.busy for cost in costs),
        peak_mb=max(cost.peak_mb for cost in costs),
    )


def nearest(images: Tensor, captions: Tensor) -> RPrecision:  # [N, C], [K, C] unit vectors; caption i is of image i
    """Return how often an image's own caption is the nearest of all K."""
    count, candidates = len(images), len(captions)
    similarity = (images[:, None] * captions[None]).sum(2)  # [N, K]; a plain sum, so that equal captions tie
    rows = torch.arange(count)
    others = torch.arange(candidates) != rows[:, None]
    ordered = torch.cat([similarity[rows, rows][:, None], similarity[others].view(count, candidates - 1)], 1)
    value = float(first_places(ordered).mean())
    return RPrecision(value, *wilson(value, count), count, candidates)
