"""A tiny training run: networks, data, a guidance loss and a Lightning trainer."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from dreamportrait.data.dataset import Batch, Conditions, TrainingData, Words
from dreamportrait.data.loader import Loader
from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.discriminator import DiscriminatorConfig, DualDiscriminator
from dreamportrait.eg3d.superresolution import SuperResolutionSpec
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.geometry.cameras import camera_label, intrinsics_from_fov, official_pose
from dreamportrait.systems.dreamportrait.conditioning import ConditioningConfig
from dreamportrait.systems.dreamportrait.config import Config
from dreamportrait.systems.dreamportrait.critic import Critic
from dreamportrait.systems.dreamportrait.generator import PortraitGenerator
from dreamportrait.systems.dreamportrait.step import DreamPortraitModule
from dreamportrait.text.encoder import TextFeatures

SIZE, WIDTH = 16, 6  # of images; of text features
GENERATOR = GeneratorConfig(
    z_dim=8,
    w_dim=16,
    plane_resolution=16,
    plane_channels=4,
    channel_base=128,
    channel_max=8,
    decoder_hidden=8,
    render_resolution=8,
    num_coarse=4,
    num_fine=4,
    superresolution=SuperResolutionSpec(8, (8, 16), (1, 2), own_filter=False),
    sr_low_precision=False,
    sr_noise="const",
)
DISCRIMINATOR = DiscriminatorConfig(
    image_resolution=SIZE, channel_base=128, channel_max=8, mapping_layers=2, num_low_precision=0, group_size=2
)
PROMPTS = ["red hair", "blue hat", "a beard", "glasses", "an old man"]


def config(folder: Path | str = "runs", **changes: dict[str, Any]) -> Config:
    """Return a configuration with two steps of four images in each stage. Stage 2 has two parts per step.

    `changes` updates sections by name; a list replaces its section.
    """
    values: dict[str, Any] = {
        "run": {"name": "tiny", "folder": str(folder), "seed": 5},
        "data": {"kind": "miniworld", "batch": 4, "workers": 0},
        "model": {"conditioning": {"token_dim": 8, "heads": 2}},
        "guidance": {"kind": "clip"},
        "loss": {"blur_start": 0, "r1_every": 3, "density_every": 2},
        "optim": {"ema_images": 16},
        "stages": [
            {"name": "adapt", "images": 8},
            {"name": "align", "images": 8, "guidance": True, "accumulate": 2},
        ],
        "trainer": {"log_every_images": 4, "save_every_images": 8, "sample_every_images": 8},
        "samples": {"prompts": PROMPTS[:2], "seeds": [0, 1], "views": [-20.0, 0.0], "truncation": 0.7},
    }
    for section, change in changes.items():
        values[section] = change if isinstance(change, list) else values.get(section, {}) | change
    return Config.model_validate(values)


class Pictures:
    """Noise pictures, each with two of the prompts."""

    resolution = SIZE

    def __init__(self, count: int = 10) -> None:
        numbers = torch.Generator().manual_seed(0)
        self._images = torch.randint(256, (count, 3, SIZE, SIZE), generator=numbers, dtype=torch.uint8)
        self.cameras = cameras(count, numbers)

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> Tensor:
        return self._images[index]

    def captions(self, index: int) -> list[str]:
        return [PROMPTS[index % 5], PROMPTS[(index + 2) % 5]]

    def evaluation_caption(self, index: int) -> str:
        return self.captions(index)[1]


class Text:
    """Text encoder whose features depend on the prompt alone: one per word and one for the end."""

    def encode(self, prompts: list[str]) -> TextFeatures:
        return encode(prompts)


def encode(prompts: list[str]) -> TextFeatures:
    length = max(len(prompt.split()) for prompt in prompts) + 1
    words, mask = torch.zeros(len(prompts), length, WIDTH), torch.zeros(len(prompts), length, dtype=torch.bool)
    for i, prompt in enumerate(prompts):
        count = len(prompt.split()) + 1
        seed = torch.Generator().manual_seed(sum(prompt.encode()))
        words[i, :count] = torch.randn(count, WIDTH, generator=seed)
        mask[i, :count] = True
    return TextFeatures(words, words[torch.arange(len(prompts)), mask.sum(1) - 1], mask)


def cameras(count: int, numbers: torch.Generator) -> Tensor:
    angles = torch.rand(2, count, generator=numbers) * 0.4 + 1.4
    return camera_label(official_pose(*angles), intrinsics_from_fov(18.837))


def batch(count: int = 4, seed: int = 0, read: bool = False) -> Batch:
    numbers = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, 3, SIZE, SIZE), dtype=torch.uint8, generator=numbers)
    words = [Words(i, 0, PROMPTS[i % 5]) for i in range(count)]
    other = [Words(i, 0, PROMPTS[(3 * i + 1) % 5]) for i in range(count)]
    text, other_text = (encode([each.prompt for each in some]) for some in (words, other))
    real = Conditions(cameras(count, numbers), words, text if read else None)
    return Batch(pixels, real, Conditions(cameras(count, numbers), other, other_text))


def guide(images: Tensor, prompts: list[str], camera: Tensor) -> Tensor:
    """Return a loss that is lowest for a grey given by the prompt. It is a mean over samples, so parts add up."""
    wanted = torch.tensor([len(prompt) / 10 - 0.7 for prompt in prompts], device=images.device)
    return (images.mean((1, 2, 3)) - wanted).square().mean()


def module(c: Config | None = None, guided: bool = True) -> DreamPortraitModule:
    """Return a training module. Its weights are the same each time."""
    c = config() if c is None else c
    torch.manual_seed(0)
    chosen = c.model.conditioning
    conditioning = ConditioningConfig(**vars(chosen), text_width=WIDTH)
    generator = PortraitGenerator.equip(TriPlaneGenerator(GENERATOR), conditioning)
    for adapter in generator.adapters.values():  # opened, because otherwise the first step trains only the gate
        torch.nn.init.constant_(adapter.gamma, 0.3)
    if generator.mapper is not None and not chosen.plain_mapper:
        torch.nn.init.normal_(generator.mapper.fuse.weight, std=0.3)
    critic = Critic(DualDiscriminator(DISCRIMINATOR), WIDTH if c.loss.text_aware_discriminator else None)
    return DreamPortraitModule(generator, critic, c, guide if guided else None)


def loader(c: Config, rank: int = 0, processes: int = 1) -> Loader:
    return Loader(
        *(TrainingData(Pictures()), Text()),
        seed=c.run.seed,
        batch=c.data.batch,
        total=c.total_images,
        rank=rank,
        processes=processes,
        real_text=c.loss.text_aware_discriminator,
    )


def trainer(*callbacks: Callback, **settings: Any) -> Trainer:
    return Trainer(
        accelerator=settings.pop("accelerator", "cpu"),
        devices=settings.pop("devices", 1),
        max_epochs=1,
        callbacks=list(callbacks),
        logger=settings.pop("logger", False),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )


class Batches:
    """A loader of the given batches. Lightning would take a list for several loaders."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


def fit(
    made: DreamPortraitModule,
    *callbacks: Callback,
    data: list[Batch] | None = None,
    ckpt_path: Path | None = None,
    **settings: Any,
) -> Trainer:
    """Train a whole run, or on the given batches, and return the trainer."""
    runner = trainer(*callbacks, **settings)
    with warnings.catch_warnings():
        # Lightning's own warnings: about a deprecated torch function in its code, about loaders without worker
        # processes, and about its logging interval, which is not used.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        runner.fit(made, loader(made.config) if data is None else Batches(data), ckpt_path=ckpt_path)
    return runner


class Recorder(Callback):
    """Records the losses of each step and the gradients of each update."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []
        self.gradients: list[dict[str, Tensor]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        named = pl_module.named_parameters()
        self.gradients.append({name: p.grad.clone() for name, p in named if p.grad is not None})

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        self.losses.append({name: float(loss) for name, loss in pl_module.losses.items()})
