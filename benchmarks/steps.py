"""Training steps of stage 1, ours and those of the official code, and the time of their parts."""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import official
from benchmarks.agreement import official_losses, our_losses, relative_difference
from benchmarks.measure import Row, table
from benchmarks.parts import Clock, watched
from dreamportrait.core.timing import peak_megabytes, seconds
from dreamportrait.data.dataset import Batch, Conditions, Words
from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.discriminator import DiscriminatorConfig, DualDiscriminator
from dreamportrait.eg3d.superresolution import SPECS
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.geometry.cameras import orbit
from dreamportrait.systems.dreamportrait import build
from dreamportrait.systems.dreamportrait.conditioning import ConditioningConfig
from dreamportrait.systems.dreamportrait.config import Config
from dreamportrait.systems.dreamportrait.cost.probe import inside_trainer
from dreamportrait.systems.dreamportrait.critic import Critic
from dreamportrait.systems.dreamportrait.generator import PortraitGenerator
from dreamportrait.systems.dreamportrait.step import DreamPortraitModule
from dreamportrait.text.encoder import TextFeatures

WORDS = 16  # tokens of a caption, with start and end
OFFICIAL, PLAIN, TEXT = "official", "ours, plain EG3D", "ours, with text"
KINDS = {
    0: "R1 and density",
    4: "density",
    1: "neither",
}  # number of an example step -> regularisers that are due in it


def make_config(device: str, batch: int, precision: str) -> Config:
    """Return the configuration of stage 1 of a run that starts from a pretrained EG3D, with the published intervals."""
    return Config.model_validate(
        {
            "run": {"name": "benchmark"},
            "data": {"kind": "miniworld", "batch": batch, "workers": 0},
            "guidance": {"kind": "none"},
            "loss": {"blur_start": 0},
            "stages": [{"name": "adapt", "images": 10**9}],
            "trainer": {"accelerator": "gpu" if device == "cuda" else "cpu", "devices": 1, "precision": precision},
        }
    )


def make_networks(size: str, config: Config) -> tuple[PortraitGenerator, Critic]:
    """Build generator and critic of a size.

    mini: the networks of the miniature world
    small: 256 x 256, rendered at 64, few channels
    full: FFHQ 512, rendered at 128

    There is no smaller official size: the official super-resolution for 128 x 128 adds in place to a tensor that it
    differentiates, so it cannot be trained in float32.
    """
    if size == "mini":
        return build.make_networks(config, build.text_width(config))
    lower: Any = {"precision": config.trainer.precision}
    if size == "small":
        narrow = {"channel_base": 4096, "channel_max": 128} | lower
        g = GeneratorConfig(render_resolution=64, superresolution=SPECS["4X"], **narrow)
        d = DiscriminatorConfig(image_resolution=256, **narrow)
    else:
        g, d = GeneratorConfig(**lower), DiscriminatorConfig(**lower)
    torch.manual_seed(0)
    portrait = PortraitGenerator(TriPlaneGenerator(g), ConditioningConfig(text_width=1024))
    return portrait, Critic(DualDiscriminator(d))


def make_batch(portrait: PortraitGenerator, count: int) -> Batch:
    """Return a batch of noise; the time of a step does not depend on the pictures."""
    g, numbers = portrait.config, torch.Generator().manual_seed(1)
    shape = count, 3, g.image_resolution, g.image_resolution
    pixels = torch.randint(256, shape, dtype=torch.uint8, generator=numbers)
    cameras = orbit([20.0 * i / count - 10 for i in range(count)], 0.0, g.camera_radius, g.camera_pivot)
    words = torch.randn(count, WORDS, portrait.conditioning.text_width, generator=numbers)
    text = TextFeatures(words, words[:, -1], torch.ones(count, WORDS, dtype=torch.bool))
    none = [Words(i, 0, "") for i in range(count)]
    return Batch(pixels, Conditions(cameras, none), Conditions(cameras.flip(0), none, text))


def without_text(batch: Batch) -> Batch:
    return replace(batch, fake=replace(batch.fake, text=None))


@dataclass
class Measured:
    """Results by name of the step (OFFICIAL, PLAIN, TEXT), then by kind of step (KINDS)."""

    times: dict[str, dict[int, list[float]]] = field(default_factory=dict)  # seconds in each round
    memory: dict[str, float] = field(default_factory=dict)  # MB, in the step with all regularisers
    parts: dict[str, dict[int, dict[str, float]]] = field(default_factory=dict)  # seconds by part, only our steps
    disagreement: dict[str, float] | None = None  # relative difference of the losses; None = not compared


def measure(
    module: DreamPortraitModule, batch: Batch, theirs: official.Training | None, device: str, repeats: int
) -> Measured:
    """Measure all steps, in turn within each kind. Call it inside the trainer."""
    found, batch = Measured(), batch.to(device)
    plain = without_text(batch)
    own = {PLAIN: partial(take_step, module, plain), TEXT: partial(take_step, module, batch)}
    steps: dict[str, Callable[[int], None]] = {**own}
    if theirs:
        expected = official_losses(theirs, batch)
        found.disagreement = relative_difference(expected, our_losses(module, plain))
        steps = {OFFICIAL: partial(theirs.step, batch=batch), **own}
    for name, step in steps.items():
        step(0)  # the first step also allocates the optimiser's state
        found.memory[name] = peak_megabytes(partial(step, 0), device)
        found.times[name] = {kind: [] for kind in KINDS}
    for kind in list(KINDS) * repeats:
        for name, step in steps.items():
            found.times[name][kind].append(seconds(partial(step, kind), device))
    for name, step in own.items():
        found.parts[name] = {kind: parts_of(module, partial(step, kind), device, repeats) for kind in KINDS}
    return found


def take_step(module: DreamPortraitModule, batch: Batch, number: int) -> None:
    module.images = number * len(batch)
    module.training_step(batch, 0)


def parts_of(module: DreamPortraitModule, step: Callable[[], None], device: str, repeats: int) -> dict[str, float]:
    """Return the mean seconds of each part of a step."""
    clock = Clock(device)
    with watched(module, clock):
        clock.restart()
        for _ in range(repeats):
            step()
        clock.turn()
    return {name: value / repeats for name, value in clock.seconds.items()}


# Tables.


def shares(config: Config) -> dict[int, float]:
    """Return the share of each kind of step within one common period of the regularisers."""
    loss = config.loss
    whole = math.lcm(loss.r1_every, loss.density_every)
    due = [(n % loss.r1_every == 0, n % loss.density_every == 0) for n in range(whole)]
    return {kind: due.count(due[kind]) / whole for kind in KINDS}


def speed_rows(found: Measured, config: Config) -> list[Row]:
    share, batch = shares(config), config.data.batch
    rows: list[Row] = []
    for name, times in found.times.items():
        medians = {kind: statistics.median(times[kind]) for kind in KINDS}
        step = sum(share[kind] * medians[kind] for kind in KINDS)
        row: Row = {"step": name, "images_per_s": batch / step, "s_per_step": step}
        row |= {f"s, {KINDS[kind]}": medians[kind] for kind in KINDS}
        row["spread"] = max((max(times[kind]) - min(times[kind])) / medians[kind] for kind in KINDS)
        if OFFICIAL in found.times:
            row["ratio"] = _ratio(found.times[OFFICIAL], times, share)
        rows.append(row | {"MB": found.memory[name]})
    return rows


def _ratio(theirs: dict[int, list[float]], ours: dict[int, list[float]], share: dict[int, float]) -> float:
    """Return the median over the rounds of official time / our time, with the kinds of steps weighted by share."""

    def mixture(times: dict[int, list[float]], index: int) -> float:
        return sum(share[kind] * times[kind][index] for kind in KINDS)

    rounds = range(len(ours[0]))
    return statistics.median(mixture(theirs, i) / mixture(ours, i) for i in rounds)


def part_rows(parts: dict[int, dict[str, float]], config: Config) -> list[Row]:
    """Return the parts of the mean step, the longest first."""
    share = shares(config)
    names = {name for each in parts.values() for name in each}
    mean = {name: sum(share[kind] * parts[kind].get(name, 0.0) for kind in KINDS) for name in names}
    whole = sum(mean.values())
    return [
        {"part": name, "ms": 1000 * value, "share": value / whole}
        for name, value in sorted(mean.items(), key=lambda item: -item[1])
    ]


def run(size: str, path: Path | None, device: str, batch: int, repeats: int, precision: str) -> Row:
    """Measure a size. `path` is the official checkout; None = measure only ours."""
    if path is not None:
        official.find(path)
    config = make_config(device, batch, precision)
    portrait, critic = make_networks(size, config)
    data, theirs = make_batch(portrait, batch), None
    if path is not None:
        theirs = official.Training(portrait.generator, critic.discriminator, config, device)
    module = DreamPortraitModule(portrait, critic, config)
    made: list[Measured] = []
    inside_trainer(module, lambda: made.append(measure(module, data, theirs, device, repeats)))
    (found,) = made
    return {
        "size": size,
        "batch": batch,
        "precision": precision,
        "repeats": repeats,
        "relative_difference_of_losses": found.disagreement,
        "steps": speed_rows(found, config),
        "parts": {name: part_rows(parts, config) for name, parts in found.parts.items()},
    }


def show(result: Row) -> None:
    print(table(result["steps"]))
    for name, rows in result["parts"].items():
        print(f"\n{name}", table(rows), sep="\n")
    if (difference := result["relative_difference_of_losses"]) is not None:
        print("\nlosses, relative difference", table([difference]), sep="\n")
