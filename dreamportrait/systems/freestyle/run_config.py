"""The configuration of the free-style system: pretraining of H, and the defaults for learning styles with it.

    config = settings.load(FreestyleConfig, "configs/freestyle/i2t_mini.yaml", ["edit.text_scale=5"])

`train.py` reads all sections and keeps `edit` and `tune` beside the trained network. `dreamportrait style learn` reads
them there; its --set changes them.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from dreamportrait.core import settings
from dreamportrait.core.config import Count, Data, Few, Rate, RunConfig, Section, Share, Text, Weight
from dreamportrait.core.errors import brief
from dreamportrait.core.settings import Problem
from dreamportrait.systems.freestyle.config import Around, Kind
from dreamportrait.systems.freestyle.fewshot import MOST_IDENTITIES, MOST_VIEWS, FewShotSettings
from dreamportrait.systems.freestyle.folder import FreestyleModel
from dreamportrait.systems.freestyle.instruct import Sampling
from dreamportrait.systems.freestyle.perceptual import check_perceptual
from dreamportrait.systems.freestyle.pretraining import PlaneLoss, PretrainSettings
from dreamportrait.systems.freestyle.prompts import Wording
from dreamportrait.systems.freestyle.start import Rule
from dreamportrait.systems.freestyle.tuning import Input, TuneSettings

SCHEDULE = 1000  # noise steps that editors were trained with; an editor's own number is checked when it edits
Angle = Annotated[float, Field(ge=0, lt=90)]  # degrees to either side of the front


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
    around: Around = "guess"  # mean: the paper's, which learns much more slowly

    def sizes(self) -> dict[str, Any]:
        """Return the sizes of I2TConfig that do not follow from the generator."""
        given: dict[str, Any] = {
            "code_size": self.code_size,
            "code_channels": self.code_channels,
            "modulation": self.modulation,
            "around": self.around,
        }
        return given if self.channels_max is None else given | {"channel_max": self.channels_max}


class Pretrain(Section):
    """Settings of PretrainSettings that do not follow from other sections."""

    lr: Rate = 0.02
    plane_loss: PlaneLoss = "scaled"
    render_share: Share = 0.25
    w_weight: Weight = 1.0
    truncation: float = 1.0
    yaw: Weight = 30.0
    pitch: Weight = 30.0
    statistics: Count = 4096
    ema_images: Count = 20_000


class Edit(Section):
    """How few-shot sets are made. identities=1 and views=100 are the paper's."""

    source: Text | None = "instruct-pix2pix"  # the editor: a name, or a folder. None = styles cannot be learnt
    steps: Few = 20
    start: Share | None = 0.9  # None = pure noise
    steps_after_start: Rule = "drop"
    image_scale: Weight = 1.5
    text_scale: Weight = 20.0
    identities: Annotated[int, Field(ge=1, le=MOST_IDENTITIES)] = 10
    views: Annotated[int, Field(ge=1, le=MOST_VIEWS)] = 10
    yaw: Angle = 30.0
    pitch: Angle = 30.0
    truncation: float = 0.7
    batch: Annotated[int, Field(ge=1, le=MOST_VIEWS)] = 8
    template: Text = Wording.template
    decorative: str = Wording.decorative
    negative: str = Wording.negative

    def settings(self, seed: int = 0) -> FewShotSettings:
        sampling = Sampling(self.steps, self.start, self.steps_after_start, self.image_scale, self.text_scale)
        wording = Wording(self.template, self.decorative, self.negative)
        names = ("identities", "views", "yaw", "pitch", "truncation", "batch")
        own = {name: getattr(self, name) for name in names}
        return FewShotSettings(**own, seed=seed, sampling=sampling, wording=wording)


class Tune(Section):
    """How H is tuned to a style. train=all and input=edited are the paper's."""

    steps: Count = 800
    views: Few = 4
    lr: Rate = 0.002
    decay: bool = False
    rec_weight: Weight = 10.0
    density_weight: Weight = 0.2
    floor_weight: Weight = 0.0
    w_weight: Weight = 0.0
    perceptual: Text = "none"  # see perceptual.py
    train: Literal["lora", "all"] = "lora"
    rank: Few = 4
    offset_stride: Annotated[int, Field(ge=0)] = 0
    input: Input = "source"

    def settings(self, seed: int = 0) -> TuneSettings:
        return TuneSettings(**self.model_dump(exclude={"perceptual"}), seed=seed)


class Learning(Section):
    """What `dreamportrait style learn` reads: the defaults of a model, a file's sections, and --set."""

    edit: Edit = Edit()
    tune: Tune = Tune()

    @classmethod
    def read(cls, model: FreestyleModel, path: Path | None = None, changes: Sequence[str] = ()) -> "Learning":
        """Return the settings. Raise ConfigError with everything that is wrong."""
        given = {} if path is None else settings.read_yaml(path)
        values = cls.of(model).model_dump(mode="json")
        for name, section in values.items():
            own = given.get(name)
            if own is not None and not isinstance(own, dict):
                raise ValueError(f"{path}: {name} is {brief(own)}; it must hold settings")
            section.update(own or {})
        problems = []
        for text in changes:
            try:
                settings.override(values, text)
            except ValueError as error:
                problems.append(Problem((), str(error)))
        found, wrong = settings.validated(cls, values)
        problems += wrong
        if found is not None and not problems:
            problems += found.contradictions()
        if problems or found is None:
            raise settings.ConfigError(str(path or "the settings of --set"), problems)
        return found

    @classmethod
    def of(cls, model: FreestyleModel) -> "Learning":
        """Return the defaults of a model."""
        how, tuning = asdict(model.few_shot), asdict(model.tuning)
        del how["seed"], tuning["seed"]
        edit = how.pop("sampling") | how.pop("wording") | how
        return cls(edit=Edit(source=model.editor, **edit), tune=Tune(perceptual=model.perceptual, **tuning))

    def contradictions(self) -> list[Problem]:
        problems = []
        try:
            how = self.edit.settings()
            how.sampling.schedule(SCHEDULE)
        except ValueError as error:
            problems.append(Problem(("edit",), str(error)))
        try:
            check_perceptual(self.tune.perceptual)
        except ValueError as error:
            problems.append(Problem(("tune.perceptual",), str(error)))
        return problems


class FreestyleConfig(RunConfig):
    FREE: ClassVar[tuple[str, ...]] = ("trainer", "logging", "run.folder", "run.offline", "edit", "tune")
    ARCHITECTURE: ClassVar[tuple[str, ...]] = ("model",)

    system: Literal["freestyle"]
    data: Drawn = Drawn()
    model: Model = Model()
    pretrain: Pretrain = Pretrain()
    perceptual: Text = "none"  # of renders in pretraining, see perceptual.py
    edit: Edit = Edit()
    tune: Tune = Tune()

    def settings(self) -> PretrainSettings:
        """Return the settings of the training step."""
        given = self.pretrain.model_dump()
        return PretrainSettings(images=self.total_images, batch=self.data.batch, seed=self.run.seed, **given)

    def contradictions(self) -> list[Problem]:
        problems = []
        if not self.stages:
            problems.append(Problem(("stages",), "empty; a run has at least one stage"))
        for i, stage in enumerate(self.stages):
            if stage.guidance or stage.prior is not None:
                problems.append(Problem((f"stages.{i}",), "pretraining has neither guidance nor a prior; remove them"))
            if not stage.images:
                problems.append(Problem((f"stages.{i}.images",), "0; say how many images the stage trains for"))
            if stage.images % self.data.batch:
                text = f"{stage.images} images are no whole number of batches of {self.data.batch}"
                problems.append(Problem((f"stages.{i}.images", "data.batch"), f"{text}; choose a multiple"))
            if stage.accumulate != 1:
                text = f"{stage.accumulate}: parts are not accumulated here; lower data.batch, or start more processes"
                problems.append(Problem((f"stages.{i}.accumulate",), text))
        if self.trainer.measure_every_images:
            text = "pretraining takes no scores on the way; set 0, and measure with `dreamportrait style evaluate`"
            problems.append(Problem(("trainer.measure_every_images",), text))
        if self.trainer.precision == "float16":
            text = "float16: H trains in float32, and gradients through a generator in float16 vanish; choose bfloat16"
            problems.append(Problem(("trainer.precision",), text))
        found = Learning(edit=self.edit).contradictions()  # perceptual distances are checked where their files are
        return problems + found
