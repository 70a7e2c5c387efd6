"""Functions that build the parts of a run from its configuration:

pictures = make_pictures(config.data)                    # in data/dataset.py
text = make_text(config, device, pictures)
generator, critic = make_networks(config, text_width(config))
guide = make_guide(config, device)
loader = make_loader(config, pictures, text, rank, processes)
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dreamportrait.core.errors import WeightsError
from dreamportrait.core.files import cache_folder
from dreamportrait.data.dataset import Pictures, TrainingData
from dreamportrait.data.loader import Loader, ShardOrder
from dreamportrait.data.shards import ShardPictures
from dreamportrait.data.sources import open_pictures
from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.discriminator import DiscriminatorConfig
from dreamportrait.eg3d.folder import load_discriminator, load_eg3d_config, load_generator
from dreamportrait.guidance.fake_score import FakeScore
from dreamportrait.guidance.guides import DIFFUSION_KINDS, ClipGuide, DiffusionGuide, Guide, MatchingGuide
from dreamportrait.guidance.stable_diffusion import load_stable_diffusion
from dreamportrait.metrics.extractors import default_extractor, default_judge, load_extractor, load_judge
from dreamportrait.metrics.scores import fitted
from dreamportrait.metrics.statistics import Fingerprints, RealStatistics
from dreamportrait.metrics.world_oracle import make_oracle
from dreamportrait.systems.dreamportrait.callbacks import Metrics
from dreamportrait.systems.dreamportrait.conditioning import ConditioningConfig
from dreamportrait.systems.dreamportrait.config import Config
from dreamportrait.systems.dreamportrait.critic import Critic
from dreamportrait.systems.dreamportrait.folder import TextSource, save_portrait
from dreamportrait.systems.dreamportrait.generator import PortraitGenerator
from dreamportrait.text import loading
from dreamportrait.text.clip_scorer import ClipScorer
from dreamportrait.text.encoder import PromptEncoder, TextEncoder
from dreamportrait.text.store import StoredText, TextStore
from dreamportrait.weights import registry


def text_width(config: Config) -> int:
    """Return the number of channels of the text features, without loading a model."""
    if config.text.store is not None:
        return TextStore(config.text.store, config.text.clip).config.width
    return loading.text_width(config.text.clip)


def make_text(config: Config, device: torch.device, pictures: Pictures) -> TextEncoder | StoredText:
    """Make the encoder for the captions of the data and for sample prompts."""

    def load() -> TextEncoder:
        return loading.load_text_encoder(config.text.clip, config.run.offline, device)

    if config.text.store is None:
        return load()
    captions = {caption for i in range(len(pictures)) for caption in pictures.captions(i)}
    return StoredText(TextStore(config.text.store, config.text.clip, captions), load)


def pretrained_folder(source: str) -> Path:
    """Return the folder of a pretrained GAN, given its name or path."""
    return registry.locate(source) if source in registry.NAMES else Path(source)


def network_configs(config: Config) -> tuple[GeneratorConfig, DiscriminatorConfig]:
    """Return the configurations of the pretrained networks, in the precision of this run."""
    folder = pretrained_folder(config.model.pretrained)
    stored = load_eg3d_config(folder)
    if stored.discriminator is None:
        raise WeightsError(f"{folder} has no discriminator, which training needs; convert a snapshot that has one")
    lower: Any = {"precision": config.trainer.precision}
    return replace(stored.generator, **lower), replace(stored.discriminator, **lower)


def group_size(config: Config) -> int:
    """Return the samples over which the discriminator computes statistics. If it is missing, that of FFHQ 512."""
    try:
        settings = network_configs(config)[1]
    except (ValueError, OSError):  # reported by the checks of what is missing
        settings = DiscriminatorConfig()
    return settings.group_size or 1  # without groups, each process takes its whole part


def conditioning_config(config: Config, width: int) -> ConditioningConfig:
    return ConditioningConfig(**vars(config.model.conditioning), text_width=width)


def make_networks(config: Config, width: int) -> tuple[PortraitGenerator, Critic]:
    """Load the pretrained networks and add the text conditioning, initialised from the run's seed."""
    folder, precision = pretrained_folder(config.model.pretrained), config.trainer.precision
    generator = load_generator(folder, precision).requires_grad_(True).train()
    discriminator = load_discriminator(folder, precision).requires_grad_(True).train()
    torch.manual_seed(config.run.seed)
    portrait = PortraitGenerator.equip(generator, conditioning_config(config, width))
    return portrait, Critic(discriminator, width if config.loss.text_aware_discriminator else None)


def save_untrained(config: Config, folder: Path) -> None:
    """Save the generator as it is at the start of a run: pretrained, with untrained text conditioning."""
    generator, _ = make_networks(config, text_width(config))
    source = config.model.pretrained
    licence = load_eg3d_config(pretrained_folder(source)).licence
    text = TextSource(config.text.clip)
    save_portrait(folder, generator, None, text, licence=licence, pretrained=source, overwrite=True)


def make_guide(config: Config, device: torch.device) -> Guide | None:
    """Make the guidance loss, or None if no stage uses one."""
    g = config.guidance
    if not config.needs_guidance:
        return None
    if g.kind == "clip":
        clip = loading.load_clip(g.clip or config.text.clip, config.run.offline, device)
        return ClipGuide(ClipScorer(clip.model, clip.tokenizer), g)
    if g.kind in DIFFUSION_KINDS:
        prior = load_stable_diffusion(
            g.source,
            offline=config.run.offline,
            precision=g.precision or config.trainer.precision,
            device=device,
            checkpoint=g.checkpoint,
            encoder=g.encoder,
        )
        if g.kind == "dmd":
            return MatchingGuide(prior, g, FakeScore(prior, config.fake.lora_rank))
        return DiffusionGuide(prior, g)
    raise ValueError(f"guidance.kind={g.kind!r}: must be none, clip, {', '.join(DIFFUSION_KINDS)}")


def make_loader(config: Config, pictures: Pictures, text: PromptEncoder, rank: int, processes: int) -> Loader:
    loader = Loader(
        TrainingData(pictures),
        text,
        seed=config.run.seed,
        batch=config.data.batch,
        total=config.total_images,
        rank=rank,
        processes=processes,
        workers=config.data.workers,
        real_text=config.loss.text_aware_discriminator,
        skip=config.data.unreadable == "skip",
        shards=pictures.shards if config.data.own_shards and isinstance(pictures, ShardPictures) else None,
    )
    if isinstance(pictures, ShardPictures) and isinstance(loader.order, ShardOrder):
        pictures.check(loader.order.own[rank])
    return loader


def measured(config: Config) -> str:
    """Return the name of the data set that generated pictures are compared with."""
    return config.measure.data or ("miniworld:validation" if config.data.kind == "miniworld" else str(config.data.path))


def make_metrics(
    config: Config,
    pictures: Pictures,
    text: TextEncoder | StoredText,
    generator: PortraitGenerator,
    device: torch.device,
) -> tuple[Metrics, ...]:
    """Make the callback that measures during training, if the configuration asks for it."""
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
    metrics = Metrics(
        every,
        generator,
        text=encoder,
        pictures=pictures,
        judge=judge.scorer,
        extractor=extractor,
        protocol=protocol,
        oracle=make_oracle(pictures, device),
        real=real,
    )
    return (metrics,)


def _of_captions(text: TextEncoder | StoredText, captions: set[str]) -> TextEncoder | StoredText:
    """Return an encoder for these captions. If the store lacks one of them, this is the text tower, kept in memory."""
    if isinstance(text, TextEncoder) or captions <= set(text.store.captions):
        return text
    return text.load()
