"""Evaluation: load the generator or pictures, data set and judge that a request names, measure, write the report.

    evaluation.run(Request(checkpoint="mini", dataset="miniworld:test", out=Path("scores")), load_subject)

scores.py computes the scores; training calls it too. pictures.py computes those of pictures of other systems.
"""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dreamportrait import __version__
from dreamportrait.core.files import cache_folder, check_free
from dreamportrait.core.machine import git_state
from dreamportrait.core.processes import joined, processes
from dreamportrait.data.dataset import Pictures
from dreamportrait.data.names import check_source
from dreamportrait.data.numbered import NumberedPictures, by_number
from dreamportrait.data.sources import open_pictures
from dreamportrait.metrics import report
from dreamportrait.metrics.extractors import (
    Extractor,
    Judge,
    check_extractor,
    default_extractor,
    default_judge,
    load_extractor,
    load_judge,
)
from dreamportrait.metrics.pictures import PictureScores, check_made, evaluate_pictures
from dreamportrait.metrics.scores import Protocol, Scores, check, evaluate, fitted
from dreamportrait.metrics.statistics import Fingerprints, RealStatistics, pictures_hash
from dreamportrait.metrics.subject import Loaded
from dreamportrait.metrics.world_oracle import make_oracle
from dreamportrait.weights.hashing import weights_hash

COUNT = 2000  # samples, if the data set has at least this many pictures
Load = Callable[[str, str, bool, torch.device], Loaded]  # arguments: checkpoint, precision, offline, device


@dataclass(frozen=True)
class Request:
    dataset: str  # see data/names.py
    out: Path
    checkpoint: str | None = None  # mini, a portrait's folder, a run's folder, or a checkpoint in it
    images: Path | None = None  # in place of a checkpoint: pictures of another system, see data/numbered.py
    count: int | None = None  # samples. None = the number of pictures in the data set, at most COUNT
    captions: Path | None = None
    extractor: str | None = None  # None = the default for the data set
    clip: str | None = None  # the judge. None = the default for the data set
    precision: str = "float32"
    protocol: dict[str, Any] = field(default_factory=dict)  # changes to the defaults of Protocol
    gpu: bool = False
    offline: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class _Measurement:
    """What a request names, loaded and checked."""

    pictures: Pictures
    protocol: Protocol
    made: NumberedPictures | None
    loaded: Loaded | None
    judge: Judge
    extractor: Extractor
    content: Fingerprints

    def scores(self, device: torch.device) -> Scores | PictureScores:
        p, oracle = self.protocol, make_oracle(self.pictures, device)
        real = RealStatistics(self.pictures, self.extractor, p.count, p.region, self.content.pictures, cache_folder())
        measured = self.pictures, self.judge.scorer, self.extractor, p, oracle, real
        if self.made is not None:
            return evaluate_pictures(self.made, *measured)
        assert self.loaded is not None
        return evaluate(self.loaded.subject, *measured)


def run(request: Request, load: Load) -> str:
    """Check the request, measure, write the report, and return the table of scores. `load` reads the checkpoint."""
    check_free(request.out, request.overwrite, report.FILES)
    _check(request)
    with joined(request.gpu) as device:
        found = _load(request, load, device)
        scores = found.scores(device)
        content = report.Content.of(scores, found.protocol, found.extractor.name)
        if processes()[0] == 0:
            report.write(request.out, content, _identity(request, found, str(device)), request.overwrite)
    return report.table(report.HEAD, content.rows)


def _check(request: Request) -> None:
    """Raise ValueError if a name or option of the request is wrong. Nothing is loaded."""
    if (request.checkpoint is None) == (request.images is None):
        raise ValueError("what to measure: give either a checkpoint or a folder of images, not both")
    check_source(request.dataset)
    check_extractor(request.extractor or default_extractor(request.dataset))
    if request.images is not None:
        by_number(request.images)
        idle = {
            "truncation": request.protocol.get("truncation", 1.0) != 1.0,
            "precision": request.precision != "float32",
        }
        for name in (name for name, changed in idle.items() if changed):
            raise ValueError(f"{name} has no effect on pictures that are given; leave it out")


def _load(request: Request, load: Load, device: torch.device) -> _Measurement:
    count = request.count
    if request.images is not None and count is None:
        count = len(by_number(request.images))
    pictures = open_pictures(request.dataset, request.captions, count)
    protocol = _protocol(request, pictures, count)
    made = loaded = None
    if request.images is not None:
        made = NumberedPictures(request.images, pictures.resolution, count)
        check_made(made, pictures, protocol)
    else:
        assert request.checkpoint is not None  # see _check
        loaded = load(request.checkpoint, request.precision, request.offline, device)
        check(loaded.subject, pictures, protocol)
    judge = load_judge(request.clip or default_judge(request.dataset), request.offline, device)
    extractor = load_extractor(request.extractor or default_extractor(request.dataset), judge, request.offline, device)
    return _Measurement(pictures, protocol, made, loaded, judge, extractor, Fingerprints(pictures, protocol.count))


def _protocol(request: Request, pictures: Pictures, count: int | None) -> Protocol:
    count = min(COUNT, len(pictures)) if count is None else count
    if count > len(pictures):
        asked = "are asked for" if request.images is None else f"are asked for by {request.images}"
        raise ValueError(f"{request.dataset} has {len(pictures)} pictures with captions, {count} {asked}")
    return fitted(count, **request.protocol)


def _identity(request: Request, found: _Measurement, device: str) -> dict[str, Any]:
    git, judge, extractor = git_state(), found.judge, found.extractor
    return {
        **_measured(request, found),
        "dataset": {
            "source": request.dataset,
            "captions": "its own" if request.captions is None else str(request.captions),
            "pictures": len(found.pictures),
            "resolution": found.pictures.resolution,
            "fingerprint": found.content.whole,
        },
        "judge": {"clip": judge.source, "layer": "projected, of unit length", "sha256": judge.weights},
        "extractor": {
            "distance": extractor.name,
            "sha256": extractor.weights,
        },
        "code": {"version": __version__, "commit": git.get("commit"), "uncommitted_changes": bool(git.get("changed"))},
        "machine": {
            "device": device,
            "processes": processes()[1],
            "torch": torch.__version__,
            "python": platform.python_version(),
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        },
    }


def _measured(request: Request, found: _Measurement) -> dict[str, Any]:
    """Return what identifies the generator or the pictures that were measured."""
    if found.made is not None:
        digest = pictures_hash(found.made.image, found.protocol.count)
        return {"images": {"source": str(request.images), "sha256": digest}}
    assert found.loaded is not None
    return {
        "checkpoint": {
            "source": request.checkpoint,
            **found.loaded.about,
            "sha256": weights_hash(found.loaded.network),
            "precision": request.precision,
        }
    }
