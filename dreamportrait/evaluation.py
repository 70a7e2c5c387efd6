"""From a command to a report: which generator, compared with what, judged by whom.

    evaluation.run(Request(checkpoint="mini", dataset="miniworld:test", out=Path("scores")))

The scores themselves are in metrics/evaluate.py, which training calls too.
"""

import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dreamportrait import __version__
from dreamportrait.data.dataset import Pictures
from dreamportrait.metrics import report
from dreamportrait.metrics.evaluate import Protocol, check, evaluate, fitted
from dreamportrait.metrics.extractors import Extractor, Judge, check_extractor, load_extractor, load_judge, weights_hash
from dreamportrait.metrics.sharing import joined, processes
from dreamportrait.metrics.sources import check_source, default_extractor, default_judge, make_oracle, open_pictures
from dreamportrait.metrics.statistics import Fingerprints, RealStatistics, cache_folder
from dreamportrait.pipeline import locate
from dreamportrait.text.encoder import TextEncoder, TextFeatures
from dreamportrait.text.generator import PortraitGenerator
from dreamportrait.text.loading import load_text_encoder
from dreamportrait.training.averaged import load_averaged
from dreamportrait.training.run_folder import CONFIG, git_state
from dreamportrait.weights import store
from dreamportrait.weights.errors import WeightsError
from dreamportrait.weights.portrait import TextSource, load_portrait

COUNT = 2000  # samples, if the data set has as many


@dataclass(frozen=True)
class Request:
    checkpoint: str  # mini, a portrait's folder, a run's folder, or a checkpoint in it
    dataset: str  # see metrics/sources.py
    out: Path
    count: int | None = None  # samples. None = as many as the data set has pictures, at most COUNT
    captions: Path | None = None
    extractor: str | None = None  # None = what suits the data set
    clip: str | None = None  # the judge. None = what suits the data set
    precision: str = "float32"
    protocol: dict[str, Any] = field(default_factory=dict)  # what differs from Protocol's defaults
    gpu: bool = False
    offline: bool = False
    overwrite: bool = False


class Subject(NamedTuple):
    """What is measured."""

    generator: PortraitGenerator
    text: TextSource
    where: dict[str, Any]  # which it is


class Shortened:
    """Prompts are padded to the longest only."""

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder = encoder

    def encode(self, prompts: list[str]) -> TextFeatures:
        return self.encoder.encode(prompts, shorten=True)


def run(request: Request) -> str:
    """Writes the report; what is wrong is found before anything is generated. -> the table of scores"""
    store.check_free(request.out, request.overwrite, report.FILES)
    names = request.clip or default_judge(request.dataset), request.extractor or default_extractor(request.dataset)
    check_source(request.dataset)
    check_extractor(names[1])
    with joined(request.gpu) as device:
        pictures = open_pictures(request.dataset, request.captions, request.count)
        protocol = _protocol(request, pictures)
        subject = load_subject(request.checkpoint, request.precision)
        check(subject.generator, pictures, protocol)
        judge = load_judge(names[0], request.offline, device)
        extractor = load_extractor(names[1], judge, request.offline, device)
        encoder = Shortened(load_text_encoder(subject.text.clip, request.offline, device))
        content = Fingerprints(pictures, protocol.count)
        real = RealStatistics(pictures, extractor, protocol.count, protocol.region, content.pictures, cache_folder())
        generator, oracle = subject.generator.to(device), make_oracle(pictures, device)
        scores = evaluate(generator, encoder, pictures, judge.scorer, extractor, protocol, oracle, real)
        if processes()[0] == 0:
            identity = _identity(request, subject, judge, extractor, pictures, content, str(device))
            report.write(request.out, scores, protocol, identity, request.overwrite)
    return report.table(["score", "value", ""], report.rows(scores, protocol, extractor.name))


def load_subject(source: str, precision: str = "float32") -> Subject:
    path = Path(source)
    if path.is_file() or (path / CONFIG).is_file():
        found = load_averaged(path, precision)
        where = {"checkpoint": str(found.checkpoint), "images": found.images}
        return Subject(found.generator, found.text, where)
    if source != "mini" and not path.is_dir():
        raise WeightsError(
            f"checkpoint {source} is not there; name mini, a folder that save_pretrained or training wrote, a run's "
            "folder or a checkpoint in it"
        )
    folder = locate(source)
    portrait = load_portrait(folder, precision)
    return Subject(portrait.generator, portrait.text, {"checkpoint": str(folder)})


def _protocol(request: Request, pictures: Pictures) -> Protocol:
    count = min(COUNT, len(pictures)) if request.count is None else request.count
    if count > len(pictures):
        raise ValueError(f"{request.dataset} has {len(pictures)} pictures with captions, {count} are asked for")
    return fitted(count, **request.protocol)


def _identity(
    request: Request,
    subject: Subject,
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
            **subject.where,
            "sha256": weights_hash(subject.generator),
            "text": {"clip": subject.text.clip, "layer": subject.text.layer},
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
