"""Scores on the way: the function that `dreamportrait evaluate` calls, on the average that would be saved now."""

from lightning.pytorch import Trainer

from dreamportrait.data.dataset import Pictures
from dreamportrait.metrics.clip_score import ClipScorer
from dreamportrait.metrics.evaluate import Protocol, check, evaluate
from dreamportrait.metrics.extractors import Extractor
from dreamportrait.metrics.generation import Encoder
from dreamportrait.metrics.oracle import Oracle
from dreamportrait.metrics.statistics import RealStatistics
from dreamportrait.text.generator import PortraitGenerator
from dreamportrait.training.callbacks.every import Every
from dreamportrait.training.module import DreamPortraitModule


class Metrics(Every):
    """All processes measure together. Draws no number that training would have drawn."""

    def __init__(
        self,
        images: int,
        generator: PortraitGenerator,  # only looked at
        text: Encoder,
        pictures: Pictures,
        judge: ClipScorer,
        extractor: Extractor,
        protocol: Protocol,
        oracle: Oracle | None,
        real: RealStatistics,
    ) -> None:
        super().__init__(images)
        check(generator, pictures, protocol)
        self.given = text, pictures, judge, extractor, protocol, oracle, real

    def act(self, trainer: Trainer, module: DreamPortraitModule) -> None:
        module.measured |= evaluate(module.averaged, *self.given).numbers()
