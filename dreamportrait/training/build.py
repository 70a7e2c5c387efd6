"""Configuration -> the parts of a run: an explicit function for each, and what must be there before any is called.

pictures = make_pictures(config.data)                    data/dataset.py
text, width = make_text(config, device)
generator, critic = make_networks(config, width)
guide = make_guide(config, device)
loader = make_loader(config, pictures, text, rank, processes)
"""

import importlib.util
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip  # type: ignore[import-untyped]
import torch

from dreamportrait.config import Config, Problem
from dreamportrait.data.dataset import Pictures, TrainingData, Words
from dreamportrait.data.folder import CAPTIONS, LABELS
from dreamportrait.data.loader import Loader, TextProvider
from dreamportrait.generator.config import GeneratorConfig
from dreamportrait.generator.discriminator import DiscriminatorConfig
from dreamportrait.generator.triplane import TriPlaneGenerator
from dreamportrait.guidance.stable_diffusion import load_stable_diffusion
from dreamportrait.metrics.clip_score import ClipScorer
from dreamportrait.metrics.evaluate import fitted
from dreamportrait.metrics.extractors import check_extractor, load_extractor, load_judge
from dreamportrait.metrics.sources import (
    check_source,
    default_extractor,
    default_judge,
    make_oracle,
    open_pictures,
)
from dreamportrait.metrics.statistics import Fingerprints, RealStatistics, cache_folder
from dreamportrait.text.config import ConditioningConfig
from dreamportrait.text.encoder import TextEncoder, TextFeatures
from dreamportrait.text.generator import PortraitGenerator
from dreamportrait.text.loading import load_clip, load_text_encoder
from dreamportrait.text.store import TextStore
from dreamportrait.training.callbacks.metrics import Metrics
from dreamportrait.training.critic import Critic
from dreamportrait.training.guides import ClipGuide, DiffusionGuide
from dreamportrait.training.module import Guide
from dreamportrait.weights import registry, store
from dreamportrait.weights.errors import WeightsError
from dreamportrait.weights.portrait import TextSource, save_portrait

_MISSING_WANDB = (
    "wandb is not installed; pip install 'dreamportrait[wandb]', or choose off: the log is always a CSV too"
)


# Text.


class Encoded:
    """Captions are encoded when they are needed."""

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder = encoder

    def features(self, words: list[Words]) -> TextFeatures:
        return self.encode([each.prompt for each in words])

    def encode(self, prompts: list[str]) -> TextFeatures:
        return self.encoder.encode(prompts, shorten=True)


class Stored:
    """Captions were encoded before; other prompts need the text tower, which is loaded for them and given up again."""

    def __init__(self, found: TextStore, load: Callable[[], TextEncoder]) -> None:
        self.store, self.load = found, load

    def features(self, words: list[Words]) -> TextFeatures:
        return self.store.encode([each.prompt for each in words])

    def encode(self, prompts: list[str]) -> TextFeatures:
        if set(prompts) <= set(self.store.captions):
            return self.store.encode(prompts)
        return self.load().encode(prompts, shorten=True)


def make_text(config: Config, device: torch.device, pictures: Pictures) -> Encoded | Stored:
    """Features of the data's captions, and of sample prompts."""

    def load() -> TextEncoder:
        return load_text_encoder(config.text.clip, config.run.offline, device)

    if config.text.store is None:
        return Encoded(load())
    captions = {caption for i in range(len(pictures)) for caption in pictures.captions(i)}
    return Stored(TextStore(config.text.store, config.text.clip, captions), load)


def text_width(config: Config) -> int:
    """Channels of the features, without loading a model."""
    source = config.text.clip
    if config.text.store is not None:
        return TextStore(config.text.store, source).config.width
    if source in registry.NAMES:
        values = json.loads((registry.locate(source) / "config.json").read_text(encoding="utf-8"))
        return int(values["model"]["text_width"])
    if Path(source).is_dir():
        path = Path(source) / "open_clip_config.json"
        try:
            return int(json.loads(path.read_text(encoding="utf-8"))["model_cfg"]["text_cfg"]["width"])
        except (OSError, ValueError, KeyError, TypeError):
            raise WeightsError(f"{path} is not there, or names no width of the text tower") from None
    name = source.partition(":")[0]
    if ":" not in source or (values := open_clip.get_model_config(name)) is None:
        raise WeightsError(f"CLIP {source!r} is no name, no folder and no MODEL:PRETRAINED of open_clip")
    return int(values["text_cfg"]["width"])


# Networks.


def pretrained_folder(source: str) -> Path:
    return registry.locate(source) if source in registry.NAMES else Path(source)


def network_configs(config: Config) -> tuple[GeneratorConfig, DiscriminatorConfig]:
    """Of the pretrained networks, in the precision of this run."""
    folder = pretrained_folder(config.model.pretrained)
    stored = store.load_config(folder)
    if stored.discriminator is None:
        raise WeightsError(f"{folder} has no discriminator, which training needs; convert a snapshot that has one")
    lower: Any = {"precision": config.trainer.precision}
    return replace(stored.generator, **lower), replace(stored.discriminator, **lower)


def conditioning_config(config: Config, width: int) -> ConditioningConfig:
    return ConditioningConfig(width, **config.model.conditioning.model_dump())


def make_networks(config: Config, width: int) -> tuple[PortraitGenerator, Critic]:
    """The pretrained ones, equipped for text; what is added starts from the run's seed."""
    folder, precision = pretrained_folder(config.model.pretrained), config.trainer.precision
    generator = store.load_generator(folder, precision).requires_grad_(True).train()
    discriminator = store.load_discriminator(folder, precision).requires_grad_(True).train()
    torch.manual_seed(config.run.seed)
    portrait = PortraitGenerator.equip(generator, conditioning_config(config, width))
    return portrait, Critic(discriminator, width if config.loss.text_aware_discriminator else None)


def save_untrained(config: Config, folder: Path) -> None:
    """The pretrained generator, equipped for text as a run would begin: its adapters are closed."""
    generator, _ = make_networks(config, text_width(config))
    source = config.model.pretrained
    licence = store.load_config(pretrained_folder(source)).licence
    text = TextSource(config.text.clip)
    save_portrait(folder, generator, None, text, licence=licence, pretrained=source, overwrite=True)


def make_guide(config: Config, device: torch.device) -> Guide | None:
    g = config.guidance
    if not config.needs_guidance:
        return None
    if g.kind == "clip":
        clip = load_clip(g.clip or config.text.clip, config.run.offline, device)
        return ClipGuide(ClipScorer(clip.model, clip.tokenizer), g)
    if g.kind in ("sds", "sjc"):
        prior = load_stable_diffusion(
            g.source,
            offline=config.run.offline,
            precision=config.trainer.precision,
            device=device,
            checkpoint=g.checkpoint,
        )
        return DiffusionGuide(prior, g)
    raise ValueError(f"guidance.kind={g.kind!r}: must be none, clip, sds or sjc")


def make_loader(config: Config, pictures: Pictures, text: TextProvider, rank: int, processes: int) -> Loader:
    return Loader(
        TrainingData(pictures),
        text,
        seed=config.run.seed,
        batch=config.data.batch,
        total=config.total_images,
        rank=rank,
        processes=processes,
        workers=config.data.workers,
        real_text=config.loss.text_aware_discriminator,
    )


# Scores.


def measured(config: Config) -> str:
    """What generated pictures are compared with."""
    return config.measure.data or ("miniworld:test" if config.data.kind == "miniworld" else str(config.data.path))


def make_metrics(
    config: Config, pictures: Pictures, text: Encoded | Stored, generator: PortraitGenerator, device: torch.device
) -> tuple[Metrics, ...]:
    """None, or one."""
    m, every, source = config.measure, config.trainer.measure_every_images, measured(config)
    if not every:
        return ()
    if m.data is not None or config.data.kind == "miniworld":
        pictures = open_pictures(source, count=m.count)
    protocol = fitted(m.count, num_candidates=m.num_candidates)
    judge = load_judge(m.clip or default_judge(source), config.run.offline, device)
    extractor = load_extractor(m.extractor or default_extractor(source), judge, config.run.offline, device)
    content = Fingerprints(pictures, min(m.count, len(pictures)))
    real = RealStatistics(pictures, extractor, m.count, protocol.region, content.pictures, cache_folder())
    numbers = range(min(m.count, len(pictures)))
    said = {caption for i in numbers for caption in (pictures.captions(i)[0], pictures.evaluation_caption(i))}
    encoder = _of_captions(text, said)
    given = encoder, pictures, judge.scorer, extractor, protocol, make_oracle(pictures, device), real
    return (Metrics(every, generator, *given),)


def _of_captions(text: Encoded | Stored, captions: set[str]) -> Encoded | Stored:
    """Captions that are not in the store need the text tower each time, so it stays."""
    if isinstance(text, Encoded) or captions <= set(text.store.captions):
        return text
    return Encoded(text.load())


# What must be there, looked at before anything is loaded.


def missing(config: Config) -> list[Problem]:
    """What the configuration names and is not there, or does not fit."""
    checks: dict[str, Callable[[Config], object]] = {
        "model.pretrained": _check_networks,
        "text.store" if config.text.store else "text.clip": text_width,
        "guidance.source": _check_guidance,
        "data.path": _check_data,
        "measure.data": _check_measured,
        "measure.extractor": _check_extractor,
        "logging.wandb": _check_wandb,
    }
    found = []
    for key, check in checks.items():
        try:
            check(config)
        except (ValueError, OSError) as error:
            found.append(Problem((key,), str(error)))
    return found


def _check_networks(config: Config) -> None:
    generator, discriminator = network_configs(config)
    folder = pretrained_folder(config.model.pretrained)
    if lost := [name for name in (store.GENERATOR, store.DISCRIMINATOR) if not (folder / name).is_file()]:
        raise WeightsError(f"{folder} lacks {' and '.join(lost)}; write it again")
    if generator.image_resolution != discriminator.image_resolution:
        sizes = f"{generator.image_resolution} and {discriminator.image_resolution}"
        raise WeightsError(f"{folder}: generator and discriminator are of {sizes} pixels; they must be a pair")
    empty = store.build_empty(TriPlaneGenerator, generator, str(folder))
    conditioning_config(config, 1).sites(empty.backbone.synthesis.resolutions)


def _check_guidance(config: Config) -> None:
    """Of what is to be fetched only that it can be asked for."""
    if config.needs_guidance and config.guidance.kind in ("sds", "sjc"):
        source = config.guidance.source
        if config.run.offline or not registry.diffusion_repositories(source):
            registry.locate_diffusion(source, offline=True)


def _check_data(config: Config) -> None:
    if config.data.kind != "folder" or config.data.path is None:
        return
    path = Path(config.data.path)
    if path.is_dir():
        names = {each.name for each in path.iterdir()}
    elif path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            names = set(file.namelist())
    else:
        raise ValueError(
            f"{path} is neither a folder nor a zip file; datasets/ holds scripts that write such data sets"
        )
    captions = config.data.captions
    if captions is not None and not Path(captions).is_file():
        raise ValueError(f"captions {captions} are not there; name a JSONL file, or leave data.captions out")
    needed = [LABELS] if captions is not None else [LABELS, CAPTIONS]
    if lost := [name for name in needed if name not in names]:
        raise ValueError(f"{path} has no {' and no '.join(lost)}; data/folder.py describes what a data set holds")


def _check_measured(config: Config) -> None:
    if config.trainer.measure_every_images and config.measure.data is not None:
        check_source(config.measure.data)


def _check_extractor(config: Config) -> None:
    if config.trainer.measure_every_images:
        check_extractor(config.measure.extractor or default_extractor(measured(config)))


def _check_wandb(config: Config) -> None:
    if config.logging.wandb != "off" and importlib.util.find_spec("wandb") is None:
        raise ValueError(_MISSING_WANDB)


def check_pictures(config: Config, pictures: Pictures, generator: GeneratorConfig) -> None:
    """That they are of the generator's size."""
    size = generator.image_resolution
    if pictures.resolution != size:
        raise ValueError(
            f"data.path: pictures are {pictures.resolution} x {pictures.resolution}, {config.model.pretrained} makes "
            f"{size} x {size}; resize them, or choose another generator"
        )
