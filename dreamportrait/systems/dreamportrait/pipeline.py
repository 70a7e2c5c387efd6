"""The pipeline that makes portraits from prompts. Portraits can be rendered from any side.

    pipe = DreamPortraitPipeline.from_pretrained("mini")
    portrait = pipe("a woman with red hair", seed=3, num_views=5)
    portrait.images                                 # [5, R, R, 3] uint8
    portrait.view(yaw=40, pitch=10).pictures[0]     # rendered from its planes: the backbone does not run again
    pipe(["a man", "an old man"]).save_sheet("sheet.png")

A prompt takes one pass through the networks and changes no weight. The same seed and prompt give the same portrait in
any list, up to rounding: on some devices the batch size changes the order of sums.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from dreamportrait.eg3d.config import PRECISIONS
from dreamportrait.export.portraits import Portrait, Portraits
from dreamportrait.geometry.cameras import Cameras, camera_labels
from dreamportrait.systems.dreamportrait.folder import TextSource, load_portrait, load_portrait_config, save_portrait
from dreamportrait.systems.dreamportrait.generator import FLOW_SCALE, PortraitGenerator, in_precision
from dreamportrait.systems.dreamportrait.names import locate_portrait
from dreamportrait.text.encoder import TextEncoder
from dreamportrait.text.loading import load_text_encoder
from eg3d_ops._checks import check_int, check_number

YAW_RANGE = (-25.0, 25.0)  # degrees; about as far as training cameras go
BATCH = 8  # portraits made at once

RandomNumbers = torch.Generator | Sequence[torch.Generator]


class DreamPortraitPipeline:
    """A text-conditioned generator with the text encoder it was trained with."""

    def __init__(
        self,
        generator: PortraitGenerator,
        encoder: TextEncoder,
        text: TextSource,  # what the encoder was loaded from
        *,
        licence: str,  # of the generator's weights
        pretrained: str,  # the generator that the training started from
    ) -> None:
        wanted = generator.conditioning.text_width
        if encoder.tower.width != wanted:
            raise ValueError(
                f"{text.clip} gives text features of {encoder.tower.width} channels, but the generator was equipped "
                f"for {wanted}; load the text encoder that it was trained with"
            )
        self.generator, self.encoder, self.text = generator, encoder, text
        self.licence, self.pretrained = licence, pretrained
        self._progress: dict[str, Any] = {"disable": None, "leave": False}  # None: shown on terminals only

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        precision: str = "float32",  # of the layers that tolerate "float16" or "bfloat16"
        device: torch.device | str = "cpu",
        offline: bool = False,  # never use the network; a text encoder from the hub must be in the hub's cache
    ) -> "DreamPortraitPipeline":
        """Load "mini", which comes with the package, or a folder written by training or by save_pretrained."""
        folder = locate_portrait(source)
        config, portrait = load_portrait_config(folder), load_portrait(folder, precision)
        encoder = load_text_encoder(config.text.clip, offline, device)
        generator = portrait.generator.to(device).requires_grad_(False)
        return cls(generator, encoder, config.text, licence=config.licence, pretrained=config.pretrained)

    def save_pretrained(self, folder: str | Path, overwrite: bool = False) -> None:
        """Save the generator and the name of its text encoder. There is no discriminator to save."""
        save_portrait(
            folder,
            self.generator,
            None,
            self.text,
            licence=self.licence,
            pretrained=self.pretrained,
            overwrite=overwrite,
        )

    @property
    def device(self) -> torch.device:
        return next(self.generator.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the layers that tolerate less than float32. Weights and all other layers are float32."""
        return self.generator.config.low_precision_dtype

    def to(
        self, device: torch.device | str | torch.dtype | None = None, dtype: torch.dtype | None = None
    ) -> "DreamPortraitPipeline":
        """Move the networks to a device, set the dtype of the layers that tolerate it, and return the pipeline."""
        if isinstance(device, torch.dtype):  # pipe.to(torch.float16)
            device, dtype = None, device
        if dtype is not None:
            names = {value: name for name, value in PRECISIONS.items()}
            if dtype not in names:
                raise ValueError(f"dtype={dtype}: must be one of {', '.join(f'torch.{name}' for name in PRECISIONS)}")
            self.generator = in_precision(self.generator, names[dtype])
        if device is not None:
            self.generator.to(device)
            self.encoder.to(device)
        return self

    def set_progress_bar_config(self, **settings: Any) -> None:
        """Change the progress bar by settings of tqdm; `disable=True` turns it off."""
        self._progress |= settings

    @overload
    def __call__(
        self,
        prompt: str,
        seed: int | None = ...,
        num_views: int = ...,
        *,
        generator: RandomNumbers | None = ...,
        cameras: Cameras | None = ...,
        truncation: float = ...,
        yaw_range: tuple[float, float] = ...,
        batch_size: int = ...,
        steps: int | None = ...,
        guidance_scale: float = ...,
    ) -> Portrait: ...

    @overload
    def __call__(
        self,
        prompt: list[str] | tuple[str, ...],
        seed: int | Sequence[int] | None = ...,
        num_views: int = ...,
        *,
        generator: RandomNumbers | None = ...,
        cameras: Cameras | None = ...,
        truncation: float = ...,
        yaw_range: tuple[float, float] = ...,
        batch_size: int = ...,
        steps: int | None = ...,
        guidance_scale: float = ...,
    ) -> Portraits: ...

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | tuple[str, ...],
        seed: int | Sequence[int] | None = None,  # of the identity: one for all prompts, or one for each. None = 0
        num_views: int = 1,  # evenly spaced over yaw_range; a single one is in its middle
        *,
        generator: RandomNumbers | None = None,  # draws the identities, replaces seed: one, or one for each prompt
        cameras: Cameras | None = None,  # labels of 25 numbers, replaces num_views
        truncation: float = 1.0,  # 0 .. 1: smaller is closer to the average face, before the text acts
        yaw_range: tuple[float, float] = YAW_RANGE,  # degrees; see Portrait.view
        batch_size: int = BATCH,  # portraits made at once
        steps: int | None = None,  # of the text prior's flow. None = one pass, which is faster and nearly as exact
        guidance_scale: float = FLOW_SCALE,  # of these steps: larger values follow the text more closely
    ) -> Portrait | Portraits:
        """Make a Portrait from a text, or Portraits from a list of texts."""
        prompts = _prompts(prompt)
        seeds, z = _identities(seed, generator, len(prompts), self.generator.config.z_dim)
        if not 0 <= check_number("truncation", truncation) <= 1:
            raise ValueError(f"truncation={truncation}: must be within 0 .. 1, from the average face to full variety")
        labels = self._cameras(num_views, cameras, yaw_range)
        check_int("batch_size", batch_size, 1)
        if steps is not None:
            check_int("steps", steps, 1)
        if check_number("guidance_scale", guidance_scale) < 0:
            raise ValueError(f"guidance_scale={guidance_scale}: must be at least 0; 1 is no guidance")
        found = []
        with self._bar(len(prompts)) as bar:
            for i in range(0, len(prompts), batch_size):
                part = slice(i, i + batch_size)
                text = self.encoder.encode(prompts[part])
                heads = self.generator.portray(z[part], text, truncation, steps, guidance_scale)
                made = zip(prompts[part], seeds[part], heads, heads.views(labels), strict=True)
                found += [Portrait(*parts) for parts in made]
                bar.update(len(heads))
        return found[0] if isinstance(prompt, str) else Portraits(found)

    def __repr__(self) -> str:
        c, g = self.generator.conditioning, self.generator
        millions = sum(p.numel() for p in g.parameters()) / 1e6
        parts = [*(["mapper"] if c.global_path else []), *(f"adapter at {name}" for name in g.adapters)]
        lines = [
            f"generator: {g.config.image_resolution} x {g.config.image_resolution}, {millions:.2f} M parameters",
            f"trained from: {self.pretrained}",
            f"text: {self.text.clip}, through {', '.join(parts)}",
            f"device: {self.device}, {str(self.dtype).removeprefix('torch.')}",
            f"licence: {self.licence}",
        ]
        return "DreamPortraitPipeline(\n" + "".join(f"  {line}\n" for line in lines) + ")"

    @contextmanager
    def _bar(self, total: int) -> Iterator[tqdm]:
        """Yield a progress bar that counts portraits."""
        with tqdm(total=total, unit=" portraits", **self._progress) as bar:
            yield bar

    def _cameras(self, num_views: int, cameras: Cameras | None, yaw_range: tuple[float, float]) -> Tensor:  # [V, 25]
        check_int("num_views", num_views, 1)
        if cameras is not None:
            if num_views != 1:
                raise ValueError(f"num_views={num_views} and cameras are given; choose one of them")
            return camera_labels(cameras)
        if not isinstance(yaw_range, tuple | list) or len(yaw_range) != 2:
            raise TypeError(f"yaw_range must be two angles in degrees, from and to, got {yaw_range!r}")
        first, last = (check_number("yaw_range", angle) for angle in yaw_range)
        angles = torch.linspace(first, last, num_views).tolist() if num_views > 1 else [(first + last) / 2]
        return self.generator.config.around(angles)


# ----- Arguments ------------------------------------------------------------------------------------------


def _prompts(prompt: object) -> list[str]:
    if isinstance(prompt, str):
        return [prompt]
    if not isinstance(prompt, list | tuple) or not all(isinstance(each, str) for each in prompt):
        raise TypeError(f"prompt must be a text or a list of texts, got {prompt!r}")
    if not prompt:
        raise ValueError("prompt is an empty list; give at least one text")
    return list(prompt)


def _identities(
    seed: int | Sequence[int] | None, generator: RandomNumbers | None, count: int, size: int
) -> tuple[list[int | None], Tensor]:  # seeds (None where a generator drew), latents [count, size]
    if generator is None:
        seeds = _seeds(0 if seed is None else seed, count)
        return [*seeds], torch.cat([_latent(each, size) for each in seeds])
    if seed is not None:
        raise ValueError(f"seed={seed} and generator are given; choose one of them")
    generators = [generator] * count if isinstance(generator, torch.Generator) else list(generator)
    if len(generators) != count or not all(isinstance(each, torch.Generator) for each in generators):
        raise ValueError(f"generator: give one torch.Generator, or a list of {count}, one for each prompt")
    draws = [torch.randn(1, size, generator=each, device=each.device).cpu() for each in generators]
    return [None] * count, torch.cat(draws)


def _seeds(seed: int | Sequence[int], count: int) -> list[int]:
    seeds = list(seed) if isinstance(seed, Sequence) else [seed] * count
    for each in seeds:
        if check_int("seed", each, 0) >= 2**63:
            raise ValueError(f"seed must be less than 2**63, got {each}")
    if len(seeds) != count:
        raise ValueError(f"{len(seeds)} seeds for {count} prompts; give one for all, or one for each")
    return seeds


def _latent(seed: int, size: int) -> Tensor:  # [1, size]
    """Draw a latent on the CPU, so that it is the same on every device."""
    return torch.randn(1, size, generator=torch.Generator().manual_seed(seed))
