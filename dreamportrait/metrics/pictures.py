"""Scores of pictures that another system made: those that need neither its weights nor other views of a head.

    made = NumberedPictures(Path("their_pictures"), pictures.resolution)
    scores = evaluate_pictures(made, pictures, judge, extractor, Protocol(count=len(made)))

Picture i was made from the evaluation caption of picture i of the data set. All scores use these pictures, so a
distance can only be compared with one that `--captions` computed with the same captions for both uses.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from dreamportrait.core.processes import gathered, own
from dreamportrait.data.dataset import Pictures
from dreamportrait.data.numbered import NumberedPictures
from dreamportrait.geometry.images import from_bytes
from dreamportrait.metrics import region
from dreamportrait.metrics.extractors import Extractor
from dreamportrait.metrics.frechet import Sums, frechet_distance
from dreamportrait.metrics.oracle import Oracle, OracleScore
from dreamportrait.metrics.r_precision import RPrecision, r_precision
from dreamportrait.metrics.region import REGIONS
from dreamportrait.metrics.scores import Protocol, check_counts, encoded, moments
from dreamportrait.metrics.sharpness import PATCH_SEED, Patches, Sharpness, check_size, cut, joined
from dreamportrait.metrics.statistics import RealStatistics
from dreamportrait.text.clip_scorer import ClipScorer


@dataclass(frozen=True)
class PictureScores:
    """See Scores in scores.py."""

    fid: float
    sharpness: dict[str, Sharpness]
    clip_score: float  # mean cosine x 100
    r_precision: RPrecision
    oracle: OracleScore | None

    def as_dict(self) -> dict[str, Any]:
        """Return all scores as values that JSON can store."""
        return asdict(self)


@torch.no_grad()
def evaluate_pictures(
    made: NumberedPictures,
    pictures: Pictures,
    judge: ClipScorer,
    extractor: Extractor,
    p: Protocol,
    oracle: Oracle | None = None,
    real: RealStatistics | None = None,  # None = computed from `pictures`, without a cache
) -> PictureScores:
    """Measure the first `p.count` pictures. All processes must call this together; all of them get the scores."""
    check_made(made, pictures, p)
    real = RealStatistics(pictures, extractor, p.count, p.region) if real is None else real
    sums, features, shown = [], [], []
    patches: dict[str, list[Patches]] = {place: [] for place in REGIONS}
    for numbers in own(p.count, p.batch):
        images = from_bytes(torch.stack([made.image(i) for i in numbers]))  # [n, 3, R, R]
        judged = region.show(images, p.region)
        sums.append(Sums.of(extractor.features(judged)))
        features.append(judge.image_features(judged))
        for place, found in patches.items():
            found.append(cut(images, numbers, p.count, PATCH_SEED, place))
        if oracle is not None:
            shown.append(oracle.judge(images, numbers))
    seen = gathered(torch.cat(features), p.count)  # [N, C]
    words = encoded(judge, [pictures.evaluation_caption(i) for i in range(p.count)])
    return PictureScores(
        fid=frechet_distance(real.moments(pictures.resolution, p.batch), moments(sums)),
        sharpness=real.patches.score({place: joined(found, p.count) for place, found in patches.items()}),
        clip_score=float((seen.double() * words.double()).sum(1).mean() * 100),
        r_precision=r_precision(seen, words, p.num_candidates, p.seed),
        oracle=None if oracle is None else OracleScore.of(gathered(torch.cat(shown), p.count), oracle.names),
    )


def check_made(made: NumberedPictures, pictures: Pictures, protocol: Protocol) -> None:
    """Raise ValueError unless pictures, data set and protocol fit together."""
    check_size(pictures.resolution)
    check_counts(pictures, protocol)
    if protocol.count > len(made):
        raise ValueError(f"count={protocol.count}: {made.folder} has {len(made)} pictures; measure at most as many")
