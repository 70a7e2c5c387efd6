"""Evaluation: load the generator, data set and judge that a request names, measure, and write the report.

    evaluation.run(Request(checkpoint="mini", dataset="miniworld:test", out=Path("scores")), load_subject)

scores.py computes the scores; training calls it too.
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
    weights_hash,
)
from dreamportrait.metrics.scores import Protocol, check, evaluate, fitted
from dreamportrait.metrics.statistics import Fingerprints, RealStatistics
from dreamportrait.metrics.subject import Loaded
from dreamportrait.metrics.world_oracle import make_oracle

COUNT = 2000  # samples, if the data set has at least this many pictures
Load = Callable[[str, str, bool, torch.device], Loaded]  # arguments: checkpoint, precision, offline, device


@dataclass(frozen=True)
class Request:
    checkpoint: str  # mini, a portrait's folder, a run's folder, or a checkpoint in it
    dataset: str  # see data/names.py
    out: Path
    count: int | None = None  # samples. None = the number of pictures in the data set, at most COUNT
    captions: Path | None = None
    extractor: str | None = None  # None = the default for the data set
    clip: str | None = None  # the judge. None = the default for the data set
    precision: str = "float32"
    protocol: dict[str, Any] = field(default_factory=dict)  # changes to the defaults of Protocol
    gpu: bool = False
    offline: bool = False
    overwrite: bool = False


def run(request: Request, load: Load) -> str:
    """Check the request, measure, write the report, and return the table of scores. `load` reads the checkpoint."""
    check_free(request.out, request.overwrite, report.FILES)
    names = request.clip or default_judge(request.dataset), request.extractor or default_extractor(request.dataset)
    check_source(request.dataset)
    check_extractor(names[1])
    with joined(request.gpu) as device:
        pictures = open_pictures(request.dataset, request.captions, request.count)
        protocol = _protocol(request, pictures)
        loaded = load(request.checkpoint, request.precision, request.offline, device)
        check(loaded.subject, pictures, protocol)
        judge = load_judge(names[0], request.offline, device)
        extractor = load_extractor(names[1], judge, request.offline, device)
        content = Fingerprints(pictures, protocol.count)
        real = RealStatistics(pictures, extractor, protocol.count, protocol.region, content.pictures, cache_folder())
        oracle = make_oracle(pictures, device)
        scores = evaluate(loaded.subject, pictures, judge.scorer, extractor, protocol, oracle, real)
        if processes()[0] == 0:
            identity = _identity(request, loaded, judge, extractor, pictures, content, str(device))
            report.write(request.out, scores, protocol, identity, request.overwrite)
    return report.table(["score", "value", ""], report.rows(scores, protocol, extractor.name))


def _protocol(request: Request, pictures: Pictures) -> Protocol:
    count = min(COUNT, len(pictures)) if request.count is None else request.count
    if count > len(pictures):
        raise ValueError(f"{request.dataset} has {len(pictures)} pictures with captions, {count} are asked for")
    return fitted(count, **request.protocol)


def _identity(
    request: Request,
    loaded: Loaded,
    judge: Judge,
    extractor: Extractor,
    pictures: Pictures,
    content: Fingerprints,
    device: str,
) -> dict[str, Any]:
    git = git_state()
    return {
        "checkpoint": {
            "source": request.checkpoint,
            **loaded.about,
            "sha256": weights_hash(loaded.network),
            "precision": request.precision,
        },
        "dataset": {
            "source": request.dataset,
            "captions": "its own" if request.captions is None else str(request.captions),
            "pictures": len(pictures),
            "resolution": pictures.resolution,
            "fingerprint": content.whole,
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
