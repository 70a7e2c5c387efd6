"""What a training run is made of: the schema of every YAML file in configs/.

    config = load_config("configs/mini.yaml", ["stages.1.images=3200", "guidance.kind=clip"])

Every key has a default but those a run cannot do without; unknown keys are refused, and everything that is wrong is
reported at once (ConfigError). All lengths are counted in images, over all processes together.

Each ablation of the paper is one key:

    no 3D pooling       model.conditioning.pooling=false       no gate        model.conditioning.gate=false
    global path only    model.conditioning.local_path=false    local only     model.conditioning.global_path=false
    fewer adapters      model.conditioning.adapters=[4,8]      frozen G       model.freeze_generator=true
    other guidance      guidance.kind=none|clip|sds|sjc        frozen D       model.freeze_discriminator=true
    plain mapper        model.conditioning.plain_mapper=true
"""

from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import yaml  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dreamportrait import settings

Count = Annotated[int, Field(ge=1)]
Images = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]
Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Run(Section):
    name: Annotated[str, Field(pattern=r"^[\w.+-]+$")]  # of the folder that everything is written to
    folder: Text = "runs"  # where such folders are
    seed: Images = 0
    offline: bool = False  # nothing is asked of a network; what is missing is an error


class Data(Section):
    kind: Literal["miniworld", "folder"]
    path: Text | None = None  # folder: the folder or zip file that data/folder.py describes. miniworld: a cache
    captions: Text | None = None  # folder: another JSONL file in place of its captions.jsonl
    count: Count | None = None  # miniworld: faces to render (None = 8000). folder: only the first (None = all)
    batch: Count = 32  # images of one optimiser step, over all processes and all accumulated parts
    workers: Images = 2  # processes that read images, for each training process; 0 = it reads them itself


class Conditioning(Section):
    """What a run chooses of text/config.py's ConditioningConfig; the text's width follows from the CLIP."""

    global_path: bool = True  # semantics mapper
    local_path: bool = True  # adapters
    adapters: tuple[Count, ...] | None = None  # resolutions after whose block one sits. None = after each but the last
    pooling: bool = True  # each plane also sees columns of the other two
    gate: bool = True  # tanh gate, closed at first
    plain_mapper: bool = False  # the paper's; False = see text/mapper.py: a residual that is zero at first
    token_dim: Count = 64
    heads: Count = 4


class Model(Section):
    pretrained: Text = "mini/eg3d"  # a name the registry knows, or a folder with generator and discriminator
    conditioning: Conditioning = Conditioning()
    freeze_generator: bool = False  # only the conditioning trains
    freeze_discriminator: bool = False


class TextSource(Section):
    clip: Text = "mini/clip-a"  # "mini/...", open_clip's "model:pretrained", or a folder
    store: Text | None = None  # features written by datasets/encode_captions.py. None = encoded as they are needed


class Guidance(Section):
    """What aligns pictures with text in the stages that ask for it."""

    kind: Literal["none", "clip", "sds", "sjc"] = "sds"
    source: Text = "mini/diffusion"  # sds, sjc: a known name, a diffusers folder, or a hub id
    clip: Text | None = None  # clip: the model that compares, named as text.clip. None = text.clip
    scale: Weight = 10.0  # eps = null + scale * (text - null); 1 is no guidance
    t_min: Share = 0.02  # of the noise schedule's length
    t_max: Share = 0.98
    weight: Literal["uniform", "sigma", "sigma_squared", "chained"] = "sigma_squared"  # w(t), see distillation.py
    rescale: Share = 1.0  # how far predicted noise is rescaled; 0 = not
    views: bool = False  # "front view", "side view" are added to prompts
    checkpoint: bool = False  # the VAE encoder is computed twice in place of being kept: half the memory


class Loss(Section):
    """Adversarial losses and their regularisers, as EG3D has them."""

    gan_weight: Weight = 1.0  # of the generator's adversarial loss
    guidance_weight: Weight = 1.0
    keep_weight: Weight = 0.0  # of the squared way that the mapper moves w, in standard deviations: keeps identities
    r1_gamma: Weight = 1.0
    r1_every: Count = 16  # steps
    density_weight: Weight = 0.25
    density_every: Count = 4  # steps
    swap_probability: Share | None = 0.5  # how often a neighbour's camera conditions. None = no conditioning
    swap_fade_images: Images = 0  # until that probability is reached from 1
    blur_start: Weight = 10.0  # pixels; width of the discriminator's blur at first
    blur_fade_images: Images = 0  # until the blur is gone; 0 = never any
    text_aware_discriminator: bool = False  # it also judges whether picture and prompt belong together


class Optim(Section):
    """Adam, (0, 0.99); rates are those before the lazy regularisation's correction."""

    lr_generator: Rate = 0.0025
    lr_discriminator: Rate = 0.002
    lr_mapper: Rate = 0.0025  # of the global path
    lr_adapters: Rate = 0.0025  # of the local path
    ema_images: Count = 10_000  # images until a weight's share of the average has halved


class Stage(Section):
    name: Annotated[str, Field(pattern=r"^[\w.+-]+$")]
    images: Count
    guidance: bool = False
    accumulate: Count = 1  # parts each process's share of the batch is computed in, before one optimiser step


class Trainer(Section):
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"  # where less is tolerated
    devices: Count | Literal["auto"] = "auto"  # processes on each machine; under torchrun, its number of processes
    nodes: Count = 1  # machines
    log_every_images: Count = 1000
    save_every_images: Count = 50_000
    sample_every_images: Images = 50_000  # 0 = no sheets
    measure_every_images: Images = 0  # 0 = no scores
    keep: Count = 2  # newest checkpoints; those at the end of a stage stay


class Logging(Section):
    """A CSV file is always written."""

    wandb: Literal["online", "offline", "off"] = "off"
    project: Text = "dreamportrait"


class Samples(Section):
    """The sheets that are drawn now and then: prompts x seeds x views."""

    prompts: tuple[str, ...] = ()
    seeds: tuple[Images, ...] = (0, 1)
    views: tuple[Annotated[float, Field(ge=-90, le=90)], ...] = (-25.0, 0.0, 25.0)  # degrees from the front
    truncation: Share = 0.7
    collapse_below: Weight = 0.02  # warning: the mean difference (colours in -1 .. 1) of a prompt's pictures is smaller


class Measure(Section):
    """The scores that are taken now and then, by the code of `dreamportrait evaluate`."""

    data: Text | None = None  # as its --dataset. None = miniworld:test in the miniworld, else the training pictures
    count: Annotated[int, Field(ge=2)] = 500  # samples, of as many captions
    num_candidates: Annotated[int, Field(ge=2)] = 100
    clip: Text | None = None  # the judge; None = what suits the data
    extractor: Text | None = None  # None = what suits the data


class Config(Section):
    run: Run
    data: Data
    model: Model = Model()
    text: TextSource = TextSource()
    guidance: Guidance = Guidance()
    loss: Loss = Loss()
    optim: Optim = Optim()
    stages: tuple[Stage, ...]
    trainer: Trainer = Trainer()
    logging: Logging = Logging()
    samples: Samples = Samples()
    measure: Measure = Measure()

    @property
    def folder(self) -> Path:
        """Of the run."""
        return Path(self.run.folder) / self.run.name

    @property
    def total_images(self) -> int:
        return sum(stage.images for stage in self.stages)

    @property
    def needs_guidance(self) -> bool:
        return self.guidance.kind != "none" and any(stage.guidance for stage in self.stages)

    def stage_at(self, images: int) -> Stage:
        """The stage of the step that starts after that many images; the last one also at the very end."""
        for stage in self.stages:
            if images < stage.images:
                return stage
            images -= stage.images
        return self.stages[-1]

    def to_yaml(self) -> str:
        """With every default written out; load_config reads it back to the same."""
        text: str = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
        return text


class Problem(NamedTuple):
    keys: tuple[str, ...]  # dotted; those involved
    text: str

    def __str__(self) -> str:
        return f"{' and '.join(self.keys)}: {self.text}" if self.keys else self.text


class ConfigError(ValueError):
    """All that is wrong with a configuration."""

    def __init__(self, where: str, problems: list[Problem]) -> None:
        self.problems = problems
        lines = "".join(f"\n  - {problem}" for problem in problems)
        super().__init__(f"{where}: {len(problems)} problem{'s' if len(problems) > 1 else ''}{lines}")


def load_config(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """A YAML file, changed by "a.b=c" each; raises with everything that is wrong."""
    config, problems = read_config(path, overrides)
    if problems or config is None:
        raise ConfigError(str(path), problems)
    return config


def read_config(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> tuple[Config | None, list[Problem]]:
    """The configuration without what is wrong with it, so that more can be checked. None = nothing is left."""
    values, problems = settings.read_yaml(Path(path)), []
    for text in overrides:
        try:
            settings.override(values, text)
        except ValueError as error:
            problems.append(Problem((), str(error)))
    config, wrong = _validated(values)
    problems += wrong
    if config is not None:
        wrong_keys = [key for problem in problems for key in problem.keys]
        problems += [problem for problem in contradictions(config) if not concerns(problem, wrong_keys)]
    return config, problems


def concerns(problem: Problem, keys: list[str]) -> bool:
    """Whether a problem is about one of these keys, or what is under it: it may only follow from another one."""
    return any(
        f"{own}.".startswith(f"{key}.") or f"{key}.".startswith(f"{own}.") for own in problem.keys for key in keys
    )


def _validated(values: dict[str, Any]) -> tuple[Config | None, list[Problem]]:
    """What is wrong is reported and taken out until the rest is right, or until nothing more can be taken out."""
    problems: dict[str, str] = {}
    while True:
        try:
            return Config.model_validate(values), [Problem((key,), text) for key, text in problems.items()]
        except ValidationError as error:
            details = error.errors()
        places = [settings.locate(values, detail["loc"]) for detail in details]
        new: dict[str, str] = {}
        for place, detail in zip(places, details, strict=True):
            key, text = settings.dotted(place), settings.explain(detail, Config)
            new[key] = f"{new[key]}; or {text}" if key in new else text
        problems |= {key: text for key, text in new.items() if key not in problems}
        if not settings.without(values, places):
            return None, [Problem((key,), text) for key, text in problems.items()]


def contradictions(config: Config) -> list[Problem]:
    """Settings that are each fine, but not together."""
    c, g, found = config.model.conditioning, config.guidance, []

    def check(wrong: bool, keys: str, text: str) -> None:
        if wrong:
            found.append(Problem(tuple(keys.split()), text))

    check(
        not c.global_path and not c.local_path,
        "model.conditioning.global_path model.conditioning.local_path",
        "both are false, so text cannot reach the generator; turn one on",
    )
    check(c.adapters == (), "model.conditioning.adapters", "none; say model.conditioning.local_path=false instead")
    check(
        list(c.adapters or ()) != sorted(set(c.adapters or ())),
        "model.conditioning.adapters",
        f"{list(c.adapters or ())}: must be ascending, each resolution once",
    )
    check(
        c.token_dim % c.heads != 0,
        "model.conditioning.token_dim model.conditioning.heads",
        f"{c.token_dim} do not divide into {c.heads} heads; choose a multiple",
    )
    check(
        c.plain_mapper and c.global_path and config.loss.keep_weight > 0,
        "model.conditioning.plain_mapper loss.keep_weight",
        "a plain mapper adds nothing to w that could be kept short; keep_weight=0 or plain_mapper=false",
    )
    check(g.t_min >= g.t_max, "guidance.t_min guidance.t_max", f"{g.t_min} must be below {g.t_max}")
    check(config.data.kind == "folder" and config.data.path is None, "data.path", "missing; data.kind=folder needs one")
    check(
        config.data.kind == "miniworld" and config.data.captions is not None,
        "data.kind data.captions",
        "the miniature world writes its own captions; remove data.captions",
    )
    m = config.measure
    few = f"{m.num_candidates} of {m.count} captions; raise the count, or ask for fewer candidates"
    check(m.num_candidates > m.count, "measure.num_candidates measure.count", few)
    check(not config.stages, "stages", "none; a run has at least one, the paper has two")
    names = [stage.name for stage in config.stages]
    for i, name in enumerate(names):
        check(name in names[:i], f"stages.{i}.name", f"{name} is there twice; each stage has a name of its own")
    for i, stage in enumerate(config.stages):
        batch = config.data.batch
        check(
            stage.images % batch != 0,
            f"stages.{i}.images data.batch",
            f"{stage.images} images are no whole number of batches of {batch}; "
            f"the nearest are {stage.images // batch * batch or batch} and {(stage.images // batch + 1) * batch}",
        )
        check(
            batch % stage.accumulate != 0,
            f"data.batch stages.{i}.accumulate",
            f"a batch of {batch} does not divide into {stage.accumulate} parts",
        )
    return found


def batch_problems(config: Config, processes: int) -> list[Problem]:
    """Whether the batch divides among that many processes and each stage's accumulated parts, and these are enough."""
    batch, found = config.data.batch, []
    for i, stage in enumerate(config.stages):
        if batch % (processes * stage.accumulate):
            parts = f"{processes} processes x {stage.accumulate} accumulated parts"
            text = f"a batch of {batch} does not divide among {parts}; choose a multiple of the product"
            found.append(Problem(("data.batch", f"stages.{i}.accumulate"), text))
        elif config.loss.text_aware_discriminator and batch == processes * stage.accumulate:
            text = "parts of one sample have no other prompt to mismatch it with; a critic that reads needs two in each"
            found.append(Problem(("data.batch", f"stages.{i}.accumulate", "loss.text_aware_discriminator"), text))
    return found
