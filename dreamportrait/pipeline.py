"""Prompts -> portraits that can be looked at from any side.

    pipe = DreamPortraitPipeline.from_pretrained("mini")
    portrait = pipe("a woman with red hair", seed=3, num_views=5)
    portrait.images                                 # [5, R, R, 3] uint8
    portrait.view(yaw=40, pitch=10).pictures[0]     # rendered from its planes: the backbone does not run again
    pipe(["a man", "an old man"]).save_sheet("sheet.png")

A prompt takes one pass through the networks and changes none of them. The same seed and prompt give the same portrait,
whatever else is in the list, up to the rounding of sums that a device orders by the size of a batch.
"""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import overload

import torch
from torch import Tensor

from dreamportrait.portraits import Cameras, Portrait, Portraits, around, camera_labels, render_views
from dreamportrait.text.encoder import TextEncoder, TextFeatures
from dreamportrait.text.generator import PortraitGenerator
from dreamportrait.text.loading import load_text_encoder
from dreamportrait.weights.errors import WeightsError, shown
from dreamportrait.weights.portrait import TextSource, load_config, load_portrait, save_portrait
from eg3d_ops._checks import check_int, check_number

YAW_RANGE = (-25.0, 25.0)  # degrees; about as far as training cameras go


class DreamPortraitPipeline:
    def __init__(
        self,
        generator: PortraitGenerator,
        encoder: TextEncoder,
        text: TextSource,  # what the encoder was loaded from
        *,
        licence: str,  # of the generator's weights
        pretrained: str,  # the generator that was equipped with text
    ) -> None:
        wanted = generator.conditioning.text_width
        if encoder.tower.width != wanted:
            raise ValueError(
                f"{text.clip} gives text features of {encoder.tower.width} channels, but the generator was equipped "
                f"for {wanted}; load the text encoder that it was trained with"
            )
        self.generator, self.encoder, self.text = generator, encoder, text
        self.licence, self.pretrained = licence, pretrained

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        precision: str = "float32",  # of the highest resolutions, which tolerate "float16" and "bfloat16"
        device: torch.device | str = "cpu",
        offline: bool = False,  # nothing is asked of a network: a text encoder of the hub must be in its cache
    ) -> "DreamPortraitPipeline":
        """`source`: "mini", which comes with the package, or a folder written by training or by save_pretrained."""
        folder = locate(source)
        config, portrait = load_config(folder), load_portrait(folder, precision)
        encoder = load_text_encoder(config.text.clip, offline, device)
        generator = portrait.generator.to(device).requires_grad_(False)
        return cls(generator, encoder, config.text, licence=config.licence, pretrained=config.pretrained)

    def save_pretrained(self, folder: str | Path, overwrite: bool = False) -> None:
        """What makes portraits: the generator and the name of its text encoder; no discriminator."""
        save_portrait(
            *(folder, self.generator, None, self.text),
            licence=self.licence,
            pretrained=self.pretrained,
            overwrite=overwrite,
        )

    @overload
    def __call__(
        self,
        prompt: str,
        seed: int = ...,
        num_views: int = ...,
        *,
        cameras: Cameras | None = ...,
        truncation: float = ...,
        yaw_range: tuple[float, float] = ...,
    ) -> Portrait: ...

    @overload
    def __call__(
        self,
        prompt: list[str] | tuple[str, ...],
        seed: int | Sequence[int] = ...,
        num_views: int = ...,
        *,
        cameras: Cameras | None = ...,
        truncation: float = ...,
        yaw_range: tuple[float, float] = ...,
    ) -> Portraits: ...

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | tuple[str, ...],
        seed: int | Sequence[int] = 0,  # one for all prompts, or one for each: the identity
        num_views: int = 1,  # evenly over yaw_range; a single one in its middle
        *,
        cameras: Cameras | None = None,  # labels of 25 numbers, in place of num_views
        truncation: float = 1.0,  # 0 .. 1: less is closer to the average face, before the text acts
        yaw_range: tuple[float, float] = YAW_RANGE,  # degrees; see Portrait.view
    ) -> Portrait | Portraits:
        """One text gives a Portrait, a list of texts Portraits."""
        prompts = _prompts(prompt)
        seeds = _seeds(seed, len(prompts))
        if not 0 <= check_number("truncation", truncation) <= 1:
            raise ValueError(f"truncation={truncation}: must be within 0 .. 1, from the average face to all variety")
        labels = self._cameras(num_views, cameras, yaw_range)
        device = next(self.generator.parameters()).device
        text = TextFeatures(*(x.to(device) for x in vars(self.encoder.encode(prompts, shorten=True)).values()))
        z = torch.cat([_latent(each, self.generator.config.z_dim) for each in seeds]).to(device)
        front = around(self.generator, [0.0]).to(device).expand(len(prompts), -1)
        ws = self.generator.map(z, front, text, truncation)
        planes = self.generator.synthesize_planes(ws, text)
        views = render_views(self.generator, planes, ws, labels)
        parts = zip(prompts, seeds, planes, ws, views, strict=True)
        found = Portraits(Portrait(*part, self.generator) for part in parts)
        return found[0] if isinstance(prompt, str) else found

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
        return around(self.generator, angles)


def locate(source: str | Path) -> Path:
    """The folder of a pipeline."""
    if source == "mini":
        folder = Path(str(resources.files("dreamportrait"))) / "mini" / "weights" / "portrait"
        if not folder.is_dir():
            raise WeightsError(
                f"the weights of the text-to-3D model 'mini' are not in this installation: no folder {folder}; "
                "install dreamportrait again, or train it: `python train.py --config configs/mini.yaml`"
            )
        return folder
    if not Path(source).is_dir():
        raise WeightsError(f"no text-to-3D model {shown(str(source))}: it is neither 'mini' nor a folder")
    return Path(source)


# Arguments.


def _prompts(prompt: object) -> list[str]:
    if isinstance(prompt, str):
        return [prompt]
    if not isinstance(prompt, list | tuple) or not all(isinstance(each, str) for each in prompt):
        raise TypeError(f"prompt must be a text or a list of texts, got {prompt!r}")
    if not prompt:
        raise ValueError("prompt is an empty list; give at least one text")
    return list(prompt)


def _seeds(seed: int | Sequence[int], count: int) -> list[int]:
    seeds = list(seed) if isinstance(seed, Sequence) else [seed] * count
    for each in seeds:
        if check_int("seed", each, 0) >= 2**63:
            raise ValueError(f"seed must be less than 2**63, got {each}")
    if len(seeds) != count:
        raise ValueError(f"{len(seeds)} seeds for {count} prompts; give one for all, or one for each")
    return seeds


def _latent(seed: int, size: int) -> Tensor:  # [1, size]
    """Drawn on the CPU, so that it is the same on every device."""
    return torch.randn(1, size, generator=torch.Generator().manual_seed(seed))
