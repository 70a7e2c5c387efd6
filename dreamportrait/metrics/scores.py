"""All scores of a text-to-3D generator. Training and the evaluation command compute them with the same function.

    scores = evaluate(subject, pictures, judge, extractor, Protocol(count=2000))
    scores.msc, scores.r_precision.value, scores.as_dict()

Sample i has its own identity, and its prompt is a caption of picture i of the data set. For the Frechet distance and
for sharpness the prompt is the picture's first caption, and the sample is rendered from the picture's camera. These
pictures are like those of training, and are compared with real ones. For all other scores the prompt is the evaluation
caption, and the sample is rendered from fixed views. Evaluation captions may be written to distinguish one picture from
all others, as those of the miniature world are. They are then not representative of ordinary captions;
docs/measuring.md describes the effect on the distance.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dreamportrait.core.processes import gathered, own, processes
from dreamportrait.data.dataset import Pictures
from dreamportrait.geometry.images import as_saved
from dreamportrait.geometry.views import Heads, View
from dreamportrait.metrics import diversity, region
from dreamportrait.metrics.consistency import reprojection_error
from dreamportrait.metrics.diversity import Diversity
from dreamportrait.metrics.extractors import Extractor
from dreamportrait.metrics.frechet import Moments, Sums, frechet_distance
from dreamportrait.metrics.oracle import KeptScore, Oracle, OracleScore
from dreamportrait.metrics.r_precision import RPrecision, r_precision
from dreamportrait.metrics.region import REGIONS, Region
from dreamportrait.metrics.sharpness import PATCH_SEED, Patches, Sharpness, check_size, cut, joined
from dreamportrait.metrics.statistics import RealStatistics
from dreamportrait.metrics.subject import IDENTITIES, SAMPLES, Subject, SubjectConfig, Unprompted, latents
from dreamportrait.text.clip_scorer import ClipScorer
from eg3d_ops._checks import check_int, check_number

BACKGROUND = 0.1  # depths greater than the camera's radius plus this are background
TOLERANCE = 0.03  # of the box's width; a point further than this behind another view's surface is hidden there


@dataclass(frozen=True)
class Protocol:
    """The settings that decide the scores, in addition to the models and the data set."""

    count: int = 2000  # samples, and real pictures that they are compared with
    num_candidates: int = 100  # captions that R-Precision chooses from
    seed: int = 0
    truncation: float = 1.0  # smaller values are closer to the average face; applied before the text conditioning
    views: tuple[float, ...] = (-15.0, 0.0, 15.0)  # degrees to the right of the front
    batch: int = 16  # batch size of each process; changes scores only by rounding
    per_prompt: int = 4  # identities of each prompt, for the diversity
    prompts_for_diversity: int = 50
    region: Region = "all"

    def __post_init__(self) -> None:
        for name, least in (("count", 2), ("batch", 1), ("per_prompt", 2), ("prompts_for_diversity", 2), ("seed", 0)):
            check_int(name, getattr(self, name), least)
        if not 2 <= self.num_candidates <= self.count:
            raise ValueError(f"num_candidates={self.num_candidates}: must be from 2 to the samples, {self.count}")
        if self.prompts_for_diversity > self.count:
            raise ValueError(f"prompts_for_diversity={self.prompts_for_diversity}: more than samples, {self.count}")
        if not 0 <= check_number("truncation", self.truncation) <= 1:
            raise ValueError(f"truncation={self.truncation}: must be within 0 .. 1")
        if 0.0 not in self.views or len(set(self.views)) != len(self.views) or len(self.views) < 2:
            raise ValueError(f"views={self.views}: must be the front, 0, and at least one other, each once")
        if self.region not in REGIONS:
            raise ValueError(f"region={self.region!r}: must be one of {', '.join(REGIONS)}")


def fitted(count: int, **changes: Any) -> Protocol:
    """Return the default protocol for `count` samples, with fewer candidates and prompts if there are few samples."""
    usual = {"num_candidates": Protocol.num_candidates, "prompts_for_diversity": Protocol.prompts_for_diversity}
    return Protocol(count=count, **{name: min(value, count) for name, value in usual.items()} | changes)


class Agreement(NamedTuple):
    """Agreement of the front view with the other views: means over portraits, see consistency.py."""

    color: float  # absolute difference, of colours from -1 to 1
    depth: float  # absolute difference, in units of the world
    seen: float  # share of the front's pixels that the other view shows too


@dataclass(frozen=True)
class Scores:
    fid: float  # of final pictures; the extractor's name says which distance it is
    fid_raw: float  # of pictures before super-resolution
    sharpness: dict[str, Sharpness]  # of final pictures, by place: "all" and "face"
    msc: float  # mean CLIP score over the views
    clip_score: dict[str, float]  # cosine x 100, by view in degrees
    r_precision: RPrecision  # of frontal pictures
    prompt_diversity: Diversity  # among portraits of one prompt
    identity_diversity: Diversity  # among portraits of different prompts
    consistency: Agreement
    oracle: OracleScore | None  # how often pictures show what their captions say. None = no oracle for these data
    unsaid: KeptScore | None  # what text leaves unchanged. None = no oracle, or the generator always needs a text

    @property
    def fid3d(self) -> float:
        """The distance of pictures whose cameras do not condition the generator.

        It is `fid`: a Subject makes its heads before it is given a camera.
        """
        return self.fid

    def as_dict(self) -> dict[str, Any]:
        """Return all scores as values that JSON can store."""
        values = asdict(self) | {"fid3d": self.fid3d}
        for name in ("prompt_diversity", "identity_diversity", "consistency"):
            values[name] = getattr(self, name)._asdict()
        return values

    def numbers(self) -> dict[str, float]:
        """Return the main scores, for a line in a log."""
        shown = {"fid": self.fid, "fid_raw": self.fid_raw, "msc": self.msc, "r_precision": self.r_precision.value}
        shown |= {"prompt_diversity": self.prompt_diversity.features, "color_error": self.consistency.color}
        whole = self.sharpness["all"]
        shown |= {"sharpness": whole.distance, "nearest_patch": whole.nearest}
        if self.oracle is not None:
            shown |= {"oracle": self.oracle.share, "oracle_complete": self.oracle.complete}
        return shown | ({} if self.unsaid is None else {"unsaid_kept": self.unsaid.share})


@torch.no_grad()
def evaluate(
    subject: Subject,
    pictures: Pictures,
    judge: ClipScorer,
    extractor: Extractor,
    protocol: Protocol,
    oracle: Oracle | None = None,
    real: RealStatistics | None = None,  # None = computed from `pictures`, without a cache
) -> Scores:
    """Measure a generator. If there are several processes, all must call this together; all of them get the scores."""
    check(subject, pictures, protocol)
    real = RealStatistics(pictures, extractor, protocol.count, protocol.region) if real is None else real
    captions = [pictures.evaluation_caption(i) for i in range(protocol.count)]
    samples = _Samples(subject, pictures, judge, extractor, protocol, oracle)
    for numbers in own(protocol.count, protocol.batch):
        samples.add(numbers, captions)
    seen = {name: gathered(torch.cat(parts), protocol.count) for name, parts in samples.found.items()}
    words = encoded(judge, captions)  # [N, C]
    cosines = (seen["views"].double() * words[:, None].double()).sum(2).mean(0) * 100  # [V]
    size, raw_size = subject.config.image_resolution, subject.config.render_resolution
    return Scores(
        fid=frechet_distance(real.moments(size, protocol.batch), moments(samples.final)),
        fid_raw=frechet_distance(real.moments(raw_size, protocol.batch), moments(samples.raw)),
        sharpness=real.patches.score(
            {place: joined(found, protocol.count) for place, found in samples.patches.items()}
        ),
        msc=float(cosines.mean()),
        clip_score={f"{view:g}": float(value) for view, value in zip(protocol.views, cosines, strict=True)},
        r_precision=r_precision(
            seen["views"][:, protocol.views.index(0.0)], words, protocol.num_candidates, protocol.seed
        ),
        **_diversities(subject, judge, captions, protocol),
        consistency=Agreement(*seen["agreement"].double().mean(0).tolist()),
        oracle=None if oracle is None else OracleScore.of(seen["oracle"], oracle.names),
        unsaid=None if oracle is None or "kept" not in seen else KeptScore.of(seen["kept"], oracle.names),
    )


def check(subject: Subject, pictures: Pictures, protocol: Protocol) -> None:
    """Raise ValueError unless generator, pictures and protocol fit together."""
    size = subject.config.image_resolution
    if pictures.resolution != size:
        raise ValueError(
            f"the data set's pictures are {pictures.resolution} x {pictures.resolution}, the generator's {size} x "
            f"{size}; compare it with pictures of its own size"
        )
    check_size(size)
    check_counts(pictures, protocol)


def check_counts(pictures: Pictures, protocol: Protocol) -> None:
    """Raise ValueError if there are too few pictures, or more processes than samples."""
    if protocol.count > len(pictures):
        raise ValueError(f"count={protocol.count}: the data set has {len(pictures)} pictures; measure at most as many")
    if protocol.count < processes()[1]:
        raise ValueError(f"count={protocol.count}: fewer than the {processes()[1]} processes; start fewer")


@dataclass
class _Samples:
    """This process's share of the samples, and what was measured on them."""

    subject: Subject
    pictures: Pictures
    judge: ClipScorer
    extractor: Extractor
    protocol: Protocol
    oracle: Oracle | None
    final: list[Sums] = field(default_factory=list)
    raw: list[Sums] = field(default_factory=list)
    found: dict[str, list[Tensor]] = field(default_factory=dict)
    patches: dict[str, list[Patches]] = field(default_factory=dict)  # of final pictures, by place

    def add(self, numbers: list[int], captions: list[str]) -> None:
        usual = self._portray(numbers, [self.pictures.captions(i)[0] for i in numbers])
        placed = usual.view(self.pictures.cameras[numbers])
        self.final.append(self._sums(placed.image, numbers))
        self.raw.append(self._sums(placed.image_raw, numbers))
        for place in REGIONS:
            found = cut(as_saved(placed.image), numbers, self.protocol.count, PATCH_SEED, place)
            self.patches.setdefault(place, []).append(found)
        p, told = self.protocol, self._portray(numbers, [captions[i] for i in numbers])
        views = [_turned(self.subject, told, degrees, len(numbers)) for degrees in p.views]
        images = torch.stack([as_saved(view.image) for view, _ in views], 1)  # [n, V, 3, R, R]
        shown = region.show(images.flatten(0, 1), p.region)
        self._note("views", self.judge.image_features(shown).unflatten(0, images.shape[:2]), numbers)
        self._note("agreement", agreement(self.subject.config, views, p.views.index(0.0)), numbers)
        if self.oracle is not None:
            self._ask(self.oracle, images[:, p.views.index(0.0)], numbers)

    def _ask(self, oracle: Oracle, front: Tensor, numbers: list[int]) -> None:  # [n, 3, R, R]
        self.found.setdefault("oracle", []).append(oracle.judge(front, numbers))
        if isinstance(self.subject, Unprompted):
            heads = self.subject.portray_without_text(self._latents(numbers), self.protocol.truncation)
            plain = as_saved(_turned(self.subject, heads, 0.0, len(numbers))[0].image)
            self.found.setdefault("kept", []).append(oracle.kept(front, plain, numbers))

    def _portray(self, numbers: list[int], prompts: list[str]) -> Heads:
        return self.subject.portray(prompts, self._latents(numbers), self.protocol.truncation)

    def _latents(self, numbers: list[int]) -> Tensor:  # [n, z_dim]
        return latents(self.subject.config.z_dim, self.protocol.seed, SAMPLES, numbers)

    def _sums(self, images: Tensor, numbers: list[int]) -> Sums:
        features = self.extractor.features(region.show(as_saved(images), self.protocol.region))
        return Sums.of(finite(features, numbers, "features of its picture"))

    def _note(self, name: str, values: Tensor, numbers: list[int]) -> None:
        self.found.setdefault(name, []).append(finite(values, numbers, name))


def finite(values: Tensor, numbers: Sequence[int], what: str) -> Tensor:  # [n, ...]
    """Return the values. Raise ValueError with the first sample that has NaN or infinite ones."""
    bad = ~values.flatten(1).isfinite().all(1)
    if bad.any():
        number = numbers[int(bad.nonzero()[0])]
        raise ValueError(f"sample {number}: {what} are NaN or infinite; the weights of the generator may be damaged")
    return values


def _turned(subject: Subject, heads: Heads, degrees: float, count: int) -> tuple[View, Tensor]:  # ..., [n, 25]
    """Return the view from `degrees` to the right of the front, and its cameras."""
    camera = subject.config.around([degrees]).expand(count, -1)
    return heads.view(camera), camera


def agreement(c: SubjectConfig, views: Sequence[tuple[View, Tensor]], front: int) -> Tensor:  # [n, 3]
    """Return the mean agreement between the front view and the other views."""
    parts = [(view.image.float().clamp(-1, 1), view.depth.float(), camera.to(view.depth)) for view, camera in views]
    first = parts.pop(front)
    limits = c.camera_radius + BACKGROUND, TOLERANCE * c.box_warp
    errors = [torch.stack(reprojection_error(first, other, *limits), 1) for other in parts]
    return torch.stack(errors).mean(0)


def _diversities(subject: Subject, judge: ClipScorer, captions: list[str], p: Protocol) -> dict[str, Diversity]:
    """Measure the diversity within and across prompts. Portrait k of prompt j has number j * per_prompt + k."""
    count = p.prompts_for_diversity * p.per_prompt
    pictures, features = [], []
    for numbers in own(count, p.batch):
        z = latents(subject.config.z_dim, p.seed, IDENTITIES, numbers)
        prompts = [captions[i // p.per_prompt] for i in numbers]
        view, _ = _turned(subject, subject.portray(prompts, z, p.truncation), 0.0, len(numbers))
        shown = region.show(as_saved(view.image), p.region)
        features.append(judge.image_features(shown))
        pictures.append(diversity.compared(shown))
    shape = p.prompts_for_diversity, p.per_prompt
    grids = [gathered(torch.cat(parts), count).unflatten(0, shape) for parts in (features, pictures)]
    return {"prompt_diversity": diversity.within(*grids), "identity_diversity": diversity.across(*grids)}


def encoded(judge: ClipScorer, captions: list[str]) -> Tensor:  # [N, C] on the CPU
    """Encode captions. Equal captions get features that are equal to the last bit, so that they tie."""
    distinct = list(dict.fromkeys(captions))
    places = {caption: i for i, caption in enumerate(distinct)}
    return judge.text_features(distinct).float().cpu()[[places[caption] for caption in captions]]


def moments(sums: list[Sums]) -> Moments:
    """Return the moments of the features of all parts, over all processes."""
    return reduce(add, sums).over_processes().moments()
