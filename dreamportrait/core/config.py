"""The configuration sections that every system shares, and RunConfig, which combines them.

All lengths of training are counted in images, summed over all processes. Unknown keys are an error.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import yaml  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, Field

from dreamportrait.core.settings import Problem

Count = Annotated[int, Field(ge=1, le=10**9)]
Few = Annotated[int, Field(ge=1, le=65_536)]  # of things that are all held in memory, or all started
Images = Annotated[int, Field(ge=0, le=10**12)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]
Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Run(Section):
    name: Annotated[str, Field(pattern=r"^[\w.+-]+$")]  # name of the folder that the run writes to
    folder: Text = "runs"  # parent of the folders of all runs
    seed: Seed = 0
    offline: bool = False  # never use the network; a missing file is an error


class Data(Section):
    kind: Literal["miniworld", "folder"]
    # folder: what `dreamportrait data prepare` wrote, or a folder or zip file, see data/folder.py. miniworld: the cache
    path: Text | None = None
    captions: Text | None = None  # folder: a JSONL file to use instead of its captions.jsonl
    count: Count | None = None  # miniworld: faces to render (None = 8000). folder: only the first ones (None = all)
    batch: Few = 32  # images per optimiser step, summed over all processes and accumulated parts
    workers: Annotated[int, Field(ge=0, le=256)] = 2  # per training process, to read images; 0 = it reads them itself
    # What a picture that cannot be read does. skip: it is named and counted, and the next one takes its place.
    unreadable: Literal["refuse", "skip"] = "refuse"
    # prepared folder: the number of processes, if each is to read shards of its own and no others; 0 = any reads any
    own_shards: Annotated[int, Field(ge=0)] = 0


class Guidance(Section):
    """Settings of the loss that aligns pictures with text, in the stages that use guidance."""

    kind: Literal["none", "clip", "sds", "sjc", "csd", "asd", "dmd"] = "sds"
    source: Text = "mini/diffusion"  # all kinds but none and clip: a known name, a diffusers folder, or a hub id
    clip: Text | None = None  # clip: the CLIP model of the loss, named as in text.clip. None = text.clip
    scale: Weight = 10.0  # eps = null + scale * (text - null); 1 = no classifier-free guidance
    t_min: Share = 0.02  # smallest t, as a share of the noise schedule
    t_max: Share = 0.98
    weight: Literal["uniform", "sigma", "sigma_squared", "chained", "beta"] = "sigma_squared"  # sds, csd, asd: w(t)
    rescale: Share = 1.0  # sds, csd, asd: strength of the noise rescaling; 0 = none
    eta: Share = 0.1  # asd: largest shift of t for the second prediction, as a share of t - t_min
    divergence: Literal["kl", "js"] = "kl"  # js: samples that the discriminator finds real count more
    views: bool = False  # add "front view", "side view" or "back view" to prompts
    precision: Literal["float32", "bfloat16", "float16"] | None = None  # of UNet and VAE. None = trainer.precision
    encoder: Text | None = None  # a folder with a small encoder in place of the VAE's: guidance/small_encoder.py
    checkpoint: bool = False  # recompute the VAE encoder in the backward pass: half the memory


class Prior(Section):
    """Settings of a stage that fits a text prior in W of the frozen generator, and puts it into the mapper."""

    # What a picture's w is paired with. captions: real pictures, inverted, with their captions. embeddings: the
    # generator's own pictures with CLIP's embeddings of them; captions then need no pictures.
    pairing: Literal["captions", "embeddings"] = "captions"
    faces: Count = 20_000  # pictures of the generator that the network from pictures to w learns from
    pictures: Count | None = None  # of the data set, to invert. None = all
    captions: Few = 4  # of each picture
    inverter_steps: Count = 3000
    content_steps: Count = 2500  # of the two networks that keep in a picture's w what its captions name
    flow_steps: Count = 4000
    answers: Count = 150_000  # of the flow, for its one-pass form
    one_pass_steps: Count = 4000
    batch: Count = 512
    scale: Weight = 2.5  # classifier-free guidance of the flow
    steps: Few = 16  # Euler steps of the flow
    # Weight of texts where seeds are assigned to pictures (prior/coupling.py). Small values keep more of the person,
    # but then seeds that differ much from the text obey only with a larger scale.
    coupling: Weight = 0.5
    noise: Weight = 0.5  # embeddings: of the picture embeddings, in their standard deviations
    # How strongly the flow is drawn to where it leaves what the text does not mention (prior/gaussian.py).
    stay: Weight = 0.5


class Fake(Section):
    """Settings of the fake score: the denoiser of the generator's own latents that guidance.kind=dmd trains."""

    updates: Annotated[int, Field(ge=0, le=256)] = 2  # per step
    lr: Rate = 2e-4  # Adam with betas (0.9, 0.999)
    warmup_images: Images = 8000  # latents it learns from before guidance begins, while the generator rests
    bank: Count = 1024  # different latents in that warm-up
    lora_rank: Few | None = None  # of the additions to the attention layers. None = train a copy of the whole UNet


class Stage(Section):
    name: Annotated[str, Field(pattern=r"^[\w.+-]+$")]
    images: Images = 0  # 0 for a stage with `prior`, which trains without the adversarial loop
    prior: Prior | None = None
    guidance: bool = False
    accumulate: Few = 1  # parts that each process splits its share of a batch into; their gradients add up


class Trainer(Section):
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"  # for layers that tolerate lower precision
    # Processes per machine; under torchrun, torchrun's number of processes.
    devices: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    nodes: Few = 1  # machines; more than one need torchrun or another launcher, see docs/clusters.md
    patience_seconds: Count = 1800  # that a process may wait for another one, before the run ends and names it
    log_every_images: Count = 1000
    save_every_images: Count = 50_000
    sample_every_images: Images = 50_000  # 0 = no sheets
    measure_every_images: Images = 0  # 0 = no scores
    # float16: updates in a row that may be left out because a gradient is NaN or infinite, before the run stops.
    skip_limit: Annotated[int, Field(ge=0, le=1000)] = 20
    keep: Count = 2  # number of newest checkpoints to keep; those at the end of a stage are always kept


class Logging(Section):
    """Loggers in addition to the CSV file, which is always written."""

    wandb: Literal["online", "offline", "off"] = "off"
    project: Text = "dreamportrait"


class RunConfig(Section):
    """The settings that the training loop reads. Each system derives its own configuration from this class."""

    # Settings that may change when a run is continued: they affect where and how fast it computes, not the results.
    FREE: ClassVar[tuple[str, ...]] = ()
    # Settings that determine the shapes or the meaning of the weights.
    ARCHITECTURE: ClassVar[tuple[str, ...]] = ()

    run: Run
    data: Data
    guidance: Guidance = Guidance()
    fake: Fake = Fake()
    stages: Annotated[tuple[Stage, ...], Field(max_length=64)]
    trainer: Trainer = Trainer()
    logging: Logging = Logging()

    @property
    def folder(self) -> Path:
        """Return the folder that the run writes to."""
        return Path(self.run.folder) / self.run.name

    @property
    def prior(self) -> Prior | None:
        """Return the settings of the stage that fits a text prior. None = there is none."""
        return next((stage.prior for stage in self.stages if stage.prior is not None), None)

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
        """Return the problems of settings that are valid on their own but contradict each other."""
        return []

    def to_yaml(self) -> str:
        """Return the configuration as YAML, with every default. Reading it back gives the same configuration."""
        text: str = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
        return text
