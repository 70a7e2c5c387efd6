"""The configuration of a training run: the schema of the YAML files in configs/dreamportrait/.

    config = load_config("configs/dreamportrait/mini.yaml", ["stages.1.images=3200", "guidance.kind=clip"])

Most keys have defaults. Unknown keys are refused, and ConfigError reports everything that is wrong at once. All
lengths are counted in images, over all processes together.

Each ablation of the paper is one key:

    no 3D pooling       model.conditioning.pooling=false       no gate        model.conditioning.gate=false
    global path only    model.conditioning.local_path=false    local only     model.conditioning.global_path=false
    fewer adapters      model.conditioning.adapters=[4,8]      frozen G       model.freeze_generator=true
    other guidance      guidance.kind=none|clip|sds|sjc        frozen D       model.freeze_discriminator=true
    plain mapper        model.conditioning.plain_mapper=true

Where the defaults and the recipes of the miniature world differ from the paper (docs/full-size.md has all of it):

    mapper      an offset of w in w's standard deviations, from text, style and their product; with a prior, residual
                blocks. plain_mapper=true is the paper's: a new w, from text and style
    identity    loss.keep_weight keeps w near its start; the paper has no such loss
    critic      loss.text_aware_discriminator=true reads the prompt. The paper does not say what its critic reads, but
                without D-SDS its R-Precision is 27 %, so it reads the prompt, too
    weights     the paper states none. loss.guidance_ratio sets the guidance's strength by lengths of gradients

Beyond the paper, see docs/guidance.md:

    other guidance      guidance.kind=csd|asd|dmd              weighted by D  guidance.divergence=js
    shift of ASD        guidance.eta=0.2                       fake score     fake.updates=4, fake.lora_rank=64, ...
    critic of pairs     loss.pair_weight=14                    its pairs      loss.pairs=RUN/prior/pairs.safetensors
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dreamportrait.core import settings
from dreamportrait.core.config import Count, Fake, Guidance, Images, Rate, RunConfig, Section, Share, Text, Weight
from dreamportrait.core.settings import Problem
from dreamportrait.systems.dreamportrait.conditioning import Conditioning


class Model(Section):
    pretrained: Text = "mini/eg3d"  # a known name, or a folder with generator and discriminator
    conditioning: Conditioning = Conditioning()
    freeze_generator: bool = False  # only the conditioning trains
    freeze_discriminator: bool = False


class TextSettings(Section):
    clip: Text = "mini/clip-a"  # "mini/...", open_clip's "model:pretrained", or a folder
    store: Text | None = None  # features written by datasets/encode_captions.py. None = encode when needed


class Loss(Section):
    """EG3D's adversarial losses and regularisers, and the weights of guidance and identity preservation."""

    gan_weight: Weight = 1.0  # of the generator's adversarial loss
    guidance_weight: Weight = 1.0
    # In place of guidance_weight: the length of the guidance's gradient at a picture, relative to that of the
    # adversarial loss, both with their weights. It does not depend on resolution or latents (balance.py).
    guidance_ratio: Rate | None = None
    balance_every_images: Images = 0  # how often these lengths are measured. 0 = at the start of each stage
    keep_weight: Weight = 0.0  # of the squared distance that the mapper moves w, in standard deviations
    pair_weight: Weight = 0.0  # of a critic of pairs of w and text (prior/pair_critic.py), after a text prior
    pairs: Text | None = None  # pairs.safetensors of a text prior. None = those of this run's own stage
    r1_gamma: Weight = 1.0
    r1_every: Count = 16  # steps
    density_weight: Weight = 0.25
    density_every: Count = 4  # steps
    swap_probability: Share | None = 0.5  # of conditioning on another sample's camera. None = no camera conditioning
    swap_fade_images: Images = 0  # over which that probability falls from 1
    blur_start: Weight = 10.0  # pixels: first width of the blur before the discriminator
    blur_fade_images: Images = 0  # over which the blur fades out; 0 = no blur
    text_aware_discriminator: bool = False  # it also judges whether picture and prompt match


class Optim(Section):
    """Adam with betas (0, 0.99)."""

    lr_generator: Rate = 0.0025
    lr_discriminator: Rate = 0.002
    lr_mapper: Rate = 0.0025  # the global path
    lr_adapters: Rate = 0.0025  # the local path
    lr_pair_critic: Rate = 5e-4
    lr_batch: Count | None = None  # the batch that these rates are for, which data.batch must equal. None = any
    ema_images: Count = 10_000  # half-life of the running average


class Samples(Section):
    """Sheets drawn every trainer.sample_every_images: prompts x seeds x views."""

    prompts: tuple[str, ...] = ()
    seeds: tuple[Images, ...] = (0, 1)
    views: tuple[Annotated[float, Field(ge=-90, le=90)], ...] = (-25.0, 0.0, 25.0)  # degrees from the front
    truncation: Share = 0.7
    collapse_below: Weight = 0.02  # warn if pictures of one prompt differ less (mean difference of colours in -1 .. 1)


class Measure(Section):
    """Scores taken every trainer.measure_every_images, by the code of `dreamportrait evaluate`."""

    data: Text | None = None  # as --dataset there. None = miniworld:validation, or the pictures of kind folder
    count: Annotated[int, Field(ge=2)] = 500  # samples, each for its own caption
    num_candidates: Annotated[int, Field(ge=2)] = 100
    clip: Text | None = None  # the CLIP that judges. None = the default for the data
    extractor: Text | None = None  # None = the default for the data


class Config(RunConfig):
    FREE: ClassVar[tuple[str, ...]] = (
        *("system", "run.folder", "run.offline", "data.path", "data.captions", "data.workers", "data.unreadable"),
        *("optim.lr_batch", "text.store", "guidance.checkpoint", "guidance.precision"),
        *("trainer", "logging", "samples", "measure"),
    )
    ARCHITECTURE: ClassVar[tuple[str, ...]] = (
        *("model.pretrained", "model.conditioning", "text.clip", "loss.text_aware_discriminator"),
    )

    system: Literal["dreamportrait"] = "dreamportrait"
    model: Model = Model()
    text: TextSettings = TextSettings()
    loss: Loss = Loss()
    optim: Optim = Optim()
    samples: Samples = Samples()
    measure: Measure = Measure()

    @property
    def needs_guidance(self) -> bool:
        return self.guidance.kind != "none" and any(stage.guidance for stage in self.stages)

    def contradictions(self) -> list[Problem]:
        return contradictions(self)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply each override "a.b=c", and raise ConfigError with everything that is wrong."""
    return settings.load(Config, path, overrides)


def contradictions(config: Config) -> list[Problem]:
    """Return a problem for each combination of settings that contradict each other."""
    c, g, found = config.model.conditioning, config.guidance, []

    def check(wrong: bool, keys: str, text: str) -> None:
        if wrong:
            found.append(Problem(tuple(keys.split()), text))

    check(
        not c.global_path and not c.local_path,
        "model.conditioning.global_path model.conditioning.local_path",
        "both are false, so text cannot reach the generator; turn one on",
    )
    check(c.adapters == (), "model.conditioning.adapters", "empty; set model.conditioning.local_path=false instead")
    check(
        list(c.adapters or ()) != sorted(set(c.adapters or ())),
        "model.conditioning.adapters",
        f"{list(c.adapters or ())}: must be ascending, each resolution once",
    )
    check(
        c.token_dim % c.heads != 0,
        "model.conditioning.token_dim model.conditioning.heads",
        f"{c.token_dim} channels do not divide into {c.heads} heads; choose a multiple",
    )
    check(
        c.plain_mapper and c.global_path and config.loss.keep_weight > 0,
        "model.conditioning.plain_mapper loss.keep_weight",
        "a plain mapper adds no offset to w that could be penalised; set keep_weight=0 or plain_mapper=false",
    )
    check(
        config.prior is not None and not (c.global_path and c.mapper_blocks),
        "stages.0.prior model.conditioning.mapper_blocks",
        "no mapper can hold the prior; set model.conditioning.mapper_blocks=3 and global_path=true",
    )
    check(
        c.plain_mapper and c.mapper_blocks > 0,
        "model.conditioning.plain_mapper model.conditioning.mapper_blocks",
        "the paper's plain mapper has no residual blocks; set one of the two back",
    )
    loss = config.loss
    check(
        loss.guidance_ratio is not None and loss.guidance_weight != Loss().guidance_weight,
        "loss.guidance_ratio loss.guidance_weight",
        f"both set the strength of the guidance; remove one of them (guidance_weight={Loss().guidance_weight} is none)",
    )
    check(
        loss.guidance_ratio is not None and loss.gan_weight == 0,
        "loss.guidance_ratio loss.gan_weight",
        "a ratio to an adversarial loss without weight; give guidance_weight instead",
    )
    check(
        loss.pair_weight > 0 and not (c.global_path and c.mapper_blocks),
        "loss.pair_weight model.conditioning.mapper_blocks",
        "only the mapper of a text prior learns from pairs; set mapper_blocks=3 and global_path=true, or pair_weight=0",
    )
    check(
        loss.pair_weight > 0 and loss.pairs is None and config.prior is None,
        "loss.pair_weight loss.pairs",
        "no pairs to learn from; begin with a stage that fits a prior, or name the pairs.safetensors of another run",
    )
    check(
        loss.pair_weight == 0 and loss.pairs is not None,
        "loss.pairs loss.pair_weight",
        "pairs that nobody reads; set a pair_weight above 0, or remove them",
    )
    check(g.t_min >= g.t_max, "guidance.t_min guidance.t_max", f"{g.t_min} must be below {g.t_max}")
    found += guidance_contradictions(config) + learning_rate_problems(config)
    check(config.data.kind == "folder" and config.data.path is None, "data.path", "missing; data.kind=folder needs one")
    check(
        config.data.kind == "miniworld" and config.data.captions is not None,
        "data.kind data.captions",
        "the miniature world writes its own captions; remove data.captions",
    )
    m = config.measure
    few = f"{m.num_candidates} of {m.count} captions; raise the count, or ask for fewer candidates"
    check(m.num_candidates > m.count, "measure.num_candidates measure.count", few)
    check(not config.stages, "stages", "empty; a run has at least one stage, the paper has two")
    names = [stage.name for stage in config.stages]
    for i, name in enumerate(names):
        check(name in names[:i], f"stages.{i}.name", f"{name} is used twice; stage names must be unique")
    for i, stage in enumerate(config.stages):
        check(
            (stage.images == 0) == (stage.prior is None),
            f"stages.{i}.images stages.{i}.prior",
            "a stage either trains for a number of images or fits a prior; give exactly one of the two",
        )
        check(
            stage.prior is not None and i > 0,
            f"stages.{i}.prior",
            "only the first stage can fit a prior, because later ones change the generator that it is fitted to",
        )
        check(
            stage.prior is not None and stage.guidance,
            f"stages.{i}.prior stages.{i}.guidance",
            "a prior is fitted without guidance; set guidance: true for a later stage",
        )
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


def guidance_contradictions(config: Config) -> list[Problem]:
    """Return a problem for each setting of the guidance or the fake score that has no effect or cannot work."""
    g, fake, found = config.guidance, config.fake, []

    def check(wrong: bool, keys: str, text: str) -> None:
        if wrong:
            found.append(Problem(tuple(keys.split()), text))

    check(
        g.eta != Guidance().eta and g.kind != "asd",
        "guidance.eta guidance.kind",
        f"only kind=asd shifts t, and kind is {g.kind}; remove eta, or choose asd",
    )
    if g.divergence == "js":
        keys = "guidance.divergence"
        text = "js weights a diffusion gradient, which kind={} does not have; choose kl"
        check(g.kind in ("none", "clip"), f"{keys} guidance.kind", text.format(g.kind))
        text = "js needs a discriminator that follows the generator; choose kl, or {}"
        check(config.model.freeze_discriminator, f"{keys} model.freeze_discriminator", text.format("train it"))
        check(config.loss.gan_weight == 0, f"{keys} loss.gan_weight", text.format("a gan_weight above 0"))
    if g.kind != "dmd":
        set_here = [name for name, value in fake if value != getattr(Fake(), name)]
        text = f"only kind=dmd trains a fake score, and kind is {g.kind}; remove the settings, or choose dmd"
        check(bool(set_here), " ".join(["guidance.kind", *(f"fake.{name}" for name in set_here)]), text)
        return found
    text = "a fake score that never learns stays the frozen model; choose 1 or more, or guidance.kind=csd"
    check(fake.updates == 0, "fake.updates", f"0: {text}")
    batch = config.data.batch
    check(
        fake.warmup_images % batch != 0,
        "fake.warmup_images data.batch",
        f"{fake.warmup_images} images are no whole number of batches of {batch}; choose a multiple, or 0",
    )
    check(
        fake.lora_rank is not None and (g.precision or config.trainer.precision) == "float16",
        "fake.lora_rank guidance.precision" if g.precision else "fake.lora_rank trainer.precision",
        "gradients through a UNet in float16 vanish; choose bfloat16, or train a copy with lora_rank=null",
    )
    return found


def learning_rate_problems(config: Config) -> list[Problem]:
    """Return a problem if the learning rates are stated to be for another batch than the run's."""
    optim, batch = config.optim, config.data.batch
    if optim.lr_batch in (None, batch):
        return []
    assert optim.lr_batch is not None
    factor = (batch / optim.lr_batch) ** 0.5
    rates = ("lr_generator", "lr_discriminator", "lr_mapper", "lr_adapters")
    rule = ", ".join(f"optim.{name}={getattr(optim, name) * factor:.3g}" for name in rates)
    text = (
        f"learning rates for batches of {optim.lr_batch}, and batches of {batch}; choose rates and set optim.lr_batch"
    )
    text += f"={batch}. The square-root rule for Adam would give {rule}; keeping them is a choice, too"
    return [Problem(("optim.lr_batch", "data.batch"), text)]


def batch_problems(config: Config, processes: int, group: int = 1) -> list[Problem]:
    """Return a problem for each stage whose parts of a batch (processes x accumulate) would be uneven or too small.

    group: samples over which the discriminator computes statistics.
    """
    batch, found = config.data.batch, []
    group = min(group, batch)
    for i, stage in enumerate(config.stages):
        count = processes * stage.accumulate
        where, parts = ("data.batch", f"stages.{i}.accumulate"), f"{processes} processes x {stage.accumulate} parts"
        if batch % count:
            text = f"a batch of {batch} does not divide among {parts}; choose a multiple of the product"
            found.append(Problem(where, text))
        elif batch // count % group:
            text = f"{parts} hold {batch // count} of a batch of {batch} each, and the discriminator's statistics need "
            text += f"whole groups of {group}; choose a batch that is a multiple of {group * count}, or fewer parts"
            found.append(Problem(where, text))
        elif config.loss.text_aware_discriminator and batch == count:
            text = "a part of one sample has no other prompt for the mismatch loss; choose parts of two or more"
            found.append(Problem((*where, "loss.text_aware_discriminator"), text))
    return found
