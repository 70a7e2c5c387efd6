"""Sections of a configuration that a run of any system has, and RunConfig, which puts them together.

All lengths are counted in images, over all processes together. Unknown keys are refused.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import yaml  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, Field

from dreamportrait.core.settings import Problem

Count = Annotated[int, Field(ge=1)]
Images = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]
Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Run(Section):
    name: Annotated[str, Field(pattern=r"^[\w.+-]+$")]  # of the folder that the run writes to
    folder: Text = "runs"  # the folder that holds the folders of runs
    seed: Images = 0
    offline: bool = False  # never use the network; a missing file is an error


class Data(Section):
    kind: Literal["miniworld", "folder"]
    path: Text | None = None  # folder: a folder or zip file, see data/folder.py. miniworld: where to cache the faces
    captions: Text | None = None  # folder: another JSONL file in place of its captions.jsonl
    count: Count | None = None  # miniworld: faces to render (None = 8000). folder: only the first ones (None = all)
    batch: Count = 32  # images of one optimiser step, over all processes and all accumulated parts
    workers: Images = 2  # processes that read images, for each training process; 0 = the training process reads


class Guidance(Section):
    """The loss that aligns pictures with text, in the stages that use guidance."""

    kind: Literal["none", "clip", "sds", "sjc"] = "sds"
    source: Text = "mini/diffusion"  # sds, sjc: a known name, a diffusers folder, or a hub id
    clip: Text | None = None  # clip: the model that compares, named as text.clip is. None = text.clip
    scale: Weight = 10.0  # eps = null + scale * (text - null); 1 = no classifier-free guidance
    t_min: Share = 0.02  # smallest t, as a share of the noise schedule
    t_max: Share = 0.98
    weight: Literal["uniform", "sigma", "sigma_squared", "chained"] = "sigma_squared"  # w(t), see distillation.py
    rescale: Share = 1.0  # strength of the noise rescaling; 0 = none
    views: bool = False  # add "front view", "side view" or "back view" to prompts
    checkpoint: bool = False  # recompute the VAE encoder in the backward pass: half the memory


class Stage(Section):
    name: Annotated[str, Field(pattern=r"^[\w.+-]+$")]
    images: Count
    guidance: bool = False
    accumulate: Count = 1  # parts that each process splits its share of the batch into, before one optimiser step


class Trainer(Section):
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"  # of the layers that tolerate less than float32
    devices: Count | Literal["auto"] = "auto"  # processes on each machine; under torchrun, its number of processes
    nodes: Count = 1  # machines
    log_every_images: Count = 1000
    save_every_images: Count = 50_000
    sample_every_images: Images = 50_000  # 0 = no sheets
    measure_every_images: Images = 0  # 0 = no scores
    keep: Count = 2  # how many of the newest checkpoints stay; those at the end of a stage always stay


class Logging(Section):
    """Loggers besides the CSV file, which is always written."""

    wandb: Literal["online", "offline", "off"] = "off"
    project: Text = "dreamportrait"


class RunConfig(Section):
    """What the training loop of any system reads. A system derives its own configuration from this class."""

    # Settings that may differ when a run is continued: they change where and how fast, but not what is computed.
    FREE: ClassVar[tuple[str, ...]] = ()
    # Settings that decide the shapes of weights, or their meaning.
    ARCHITECTURE: ClassVar[tuple[str, ...]] = ()

    run: Run
    data: Data
    guidance: Guidance = Guidance()
    stages: tuple[Stage, ...]
    trainer: Trainer = Trainer()
    logging: Logging = Logging()

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return Path(self.run.folder) / self.run.name

    @property
    def total_images(self) -> int:
        return sum(stage.images for stage in self.stages)

    def stage_at(self, images: int) -> Stage:
        """Return the stage of the step that starts after `images` images; at the very end, the last stage."""
        for stage in self.stages:
            if images < stage.images:
                return stage
            images -= stage.images
        return self.stages[-1]

    def stage_ends(self) -> list[int]:
        """Return the number of images seen at the end of each stage."""
        return [sum(stage.images for stage in self.stages[: i + 1]) for i in range(len(self.stages))]

    def contradictions(self) -> list[Problem]:
        """Return the settings that are valid each on its own, but not together."""
        return []

    def to_yaml(self) -> str:
        """Write the configuration with every default; reading it back gives the same configuration."""
        text: str = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
        return text
