"""The configuration of a pretraining run: the sections that every run has, the network's sizes, and eq. 4."""

from typing import ClassVar, Literal

from dreamportrait.core.config import Count, Data, Few, Rate, RunConfig, Section, Share, Text, Weight
from dreamportrait.core.settings import Problem
from dreamportrait.systems.freestyle.config import Kind
from dreamportrait.systems.freestyle.pretraining import PlaneLoss, PretrainSettings


class Drawn(Data):
    """Heads that the generator draws while it trains; no pictures are read."""

    kind: Literal["drawn"] = "drawn"  # type: ignore[assignment]
    batch: Few = 16


class Model(Section):
    pretrained: Text = "mini/eg3d"  # the generator: a name, or a folder
    code_size: Few = 32
    code_channels: Few = 256
    channels_max: Few | None = None  # of the modulation layers. None = the generator's
    modulation: Kind = "full"


class Pretrain(Section):
    """Settings of PretrainSettings that do not follow from other sections."""

    lr: Rate = 0.002
    plane_loss: PlaneLoss = "scaled"
    render_share: Share = 0.25
    w_weight: Weight = 1.0
    truncation: float = 1.0
    yaw: Weight = 30.0
    pitch: Weight = 30.0
    statistics: Count = 4096
    ema_images: Count = 20_000


class FreestyleConfig(RunConfig):
    FREE: ClassVar[tuple[str, ...]] = ("trainer", "logging", "run.folder", "run.offline")
    ARCHITECTURE: ClassVar[tuple[str, ...]] = ("model",)

    system: Literal["freestyle"]
    data: Drawn = Drawn()
    model: Model = Model()
    pretrain: Pretrain = Pretrain()
    perceptual: Text = "none"  # of renders, see perceptual.py

    def settings(self) -> PretrainSettings:
        """Return the settings of the training step."""
        given = self.pretrain.model_dump()
        return PretrainSettings(images=self.total_images, batch=self.data.batch, seed=self.run.seed, **given)

    def contradictions(self) -> list[Problem]:
        problems = []
        for i, stage in enumerate(self.stages):
            if stage.guidance or stage.prior is not None:
                problems.append(Problem((f"stages.{i}",), "pretraining has neither guidance nor a prior; remove them"))
            if stage.images % self.data.batch:
                text = f"{stage.images} images are no whole number of batches of {self.data.batch}"
                problems.append(Problem((f"stages.{i}.images", "data.batch"), f"{text}; choose a multiple"))
        return problems
