"""Checks before a run starts that everything the configuration names exists and fits. No weights are loaded."""

import zipfile
from collections.abc import Callable
from pathlib import Path

from dreamportrait.core.errors import WeightsError, brief, listed
from dreamportrait.core.settings import Problem, problems_of
from dreamportrait.data.dataset import Pictures
from dreamportrait.data.folder import CAPTIONS, LABELS, open_zip
from dreamportrait.data.index import is_prepared
from dreamportrait.data.names import check_source, split_source
from dreamportrait.data.shards import check_prepared
from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.folder import DISCRIMINATOR, GENERATOR
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.guidance.guides import DIFFUSION_KINDS
from dreamportrait.metrics.extractors import check_extractor, default_extractor
from dreamportrait.systems.dreamportrait.build import (
    conditioning_config,
    measured,
    network_configs,
    pretrained_folder,
    text_width,
)
from dreamportrait.systems.dreamportrait.config import Config
from dreamportrait.text.store import TextStore
from dreamportrait.training.devices import check_devices, count_processes
from dreamportrait.weights.diffusion_sources import diffusion_repositories, locate_diffusion
from dreamportrait.weights.folder import build_empty


def missing(config: Config) -> list[Problem]:
    """Return a problem for everything that the configuration names and that is missing or does not fit."""
    checks: dict[str, Callable[[Config], object]] = {
        "trainer.accelerator": check_devices,
        "model.pretrained": _check_networks,
        "text.store" if config.text.store else "text.clip": text_width,
        "samples.prompts": _check_prompts,
        "stages.0.prior.faces": _check_prior,
        "loss.pairs": _check_pairs,
        "guidance.source": _check_guidance,
        "data.path": _check_data,
        "data.own_shards": _check_own_shards,
        "measure.data": _check_measured,
        "measure.extractor": _check_extractor,
    }
    return problems_of(config, checks)


def _check_networks(config: Config) -> None:
    generator, discriminator = network_configs(config)
    folder = pretrained_folder(config.model.pretrained)
    if lost := [name for name in (GENERATOR, DISCRIMINATOR) if not (folder / name).is_file()]:
        raise WeightsError(f"{folder} lacks {' and '.join(lost)}; write it again")
    if generator.image_resolution != discriminator.image_resolution:
        sizes = f"{generator.image_resolution} and {discriminator.image_resolution}"
        raise WeightsError(f"{folder}: generator and discriminator are of {sizes} pixels; they must be a pair")
    empty = build_empty(TriPlaneGenerator, generator, str(folder))
    conditioning_config(config, 1).sites(empty.backbone.synthesis.resolutions)


def _check_prompts(config: Config) -> None:
    """Raise ValueError if a store of text features lacks prompts of the sample sheets.

    A run with a store needs no text tower, which may not be on this machine.
    """
    if config.text.store is None or not config.trainer.sample_every_images:
        return
    try:
        stored = TextStore(config.text.store, config.text.clip)
    except (ValueError, OSError):  # reported with text.store
        return
    known = set(stored.captions)
    if lost := [brief(prompt) for prompt in config.samples.prompts if prompt not in known]:
        raise WeightsError(
            f"{config.text.store} has no features of {listed(lost, 3)}; encode the captions again with "
            "datasets/encode_captions.py --config, or choose prompts among the captions"
        )


def _check_prior(config: Config) -> None:
    """Raise ValueError if a prior would be fitted to too few pictures of the generator."""
    least = network_configs(config)[0].w_dim + 1
    if config.prior is not None and config.prior.faces < least:
        raise ValueError(f"{config.prior.faces}: the covariance of w needs at least {least} faces; thousands are usual")


def _check_pairs(config: Config) -> None:
    if config.loss.pairs is not None and not Path(config.loss.pairs).is_file():
        raise WeightsError(f"{config.loss.pairs} is not there; name the pairs.safetensors of a text prior's folder")


def _check_guidance(config: Config) -> None:
    """Check that the guidance model exists. Hub models are only checked for a known name, not downloaded."""
    if config.needs_guidance and config.guidance.kind in DIFFUSION_KINDS:
        source = config.guidance.source
        if config.run.offline or not diffusion_repositories(source):
            locate_diffusion(source, offline=True)
        if (encoder := config.guidance.encoder) is not None and not (Path(encoder) / "config.json").is_file():
            raise WeightsError(
                f"guidance.encoder: {encoder} holds no encoder; guidance/small_encoder.py says what it needs"
            )


def _check_data(config: Config) -> None:
    if config.data.kind != "folder" or config.data.path is None:
        return
    path, _ = split_source(config.data.path)
    if is_prepared(path):
        check_prepared(path, config.data.captions)
        return
    if path.is_dir():
        names = {each.name for each in path.iterdir()}
    elif path.is_file() and zipfile.is_zipfile(path):
        with open_zip(path) as file:
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


def _check_own_shards(config: Config) -> None:
    data, processes = config.data, count_processes(config)
    if not data.own_shards:
        return
    if data.kind != "folder" or data.path is None or not is_prepared(split_source(data.path)[0]):
        raise ValueError(f"{data.path or data.kind} has no shards; prepare it, or leave data.own_shards out")
    if data.own_shards != processes:
        raise ValueError(
            f"shards for {data.own_shards} processes, and this run has {processes}; start as many, or set "
            f"data.own_shards={processes} in a new run"
        )


def _check_measured(config: Config) -> None:
    if config.trainer.measure_every_images and config.measure.data is not None:
        check_source(config.measure.data)


def _check_extractor(config: Config) -> None:
    if config.trainer.measure_every_images:
        check_extractor(config.measure.extractor or default_extractor(measured(config)))


def check_pictures(config: Config, pictures: Pictures, generator: GeneratorConfig) -> None:
    """Raise ValueError unless the pictures have the generator's resolution."""
    size = generator.image_resolution
    if pictures.resolution != size:
        raise ValueError(
            f"data.path: pictures are {pictures.resolution} x {pictures.resolution}, {config.model.pretrained} makes "
            f"{size} x {size}; resize them, or choose another generator"
        )
