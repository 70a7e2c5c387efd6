"""Mixing of prompts and of seeds: the ws of several portraits are averaged, layer by layer, and drawn by one generator.

    mix = pipe.mix(["a woman with red hair", "an old man with a hat"], seed=3)     two prompts, one identity
    mix.blend(0.3, 0.7)                   by weights
    mix.layered(5)                        the first prompt up to layer 5, the second from there on
    mix.steps(7)                          seven portraits from the first prompt to the second
    pipe.mix("a woman", seed=[1, 2])      the same for two identities of one prompt

    here      meaning
    K         number of parts: pairs of a prompt and a seed
    shares    [K, num_ws], how much of each part a layer gets; each column sums to 1
    ws        sum over k of shares[k] * ws[k]; an adapter adds the sum over k of shares[k] * (its change by words k)

Averages are taken in W and on straight lines. Of the ways that were compared, it changes faces most evenly:
interpolated text features switch abruptly in the middle, and latents z pass through other people (docs/mixing.md).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamportrait.eg3d.planes import Planes
from dreamportrait.eg3d.synthesis import Between
from dreamportrait.export.portraits import NOBODY, Portrait, Portraits
from dreamportrait.export.provenance import Claim
from dreamportrait.export.video import Video, save_change
from dreamportrait.geometry.paths import along
from dreamportrait.systems.dreamportrait.generator import PortraitGenerator
from dreamportrait.text.encoder import TextFeatures
from eg3d_ops._checks import check_int, check_number


@dataclass(frozen=True, eq=False)
class Mix:
    """K parts that can be mixed. Made by DreamPortraitPipeline.mix."""

    generator: PortraitGenerator
    prompts: tuple[str, ...]  # K
    seeds: tuple[int | None, ...]  # K
    ws: Tensor  # [K, num_ws, w_dim]
    text: TextFeatures  # K
    cameras: Tensor  # [V, 25] of the views of each portrait
    strength: float = 1.0  # of the text, which `ws` already has; the adapters need it
    claim: Claim = NOBODY  # what files of its portraits say about their origin

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def num_layers(self) -> int:
        return self.generator.num_ws

    def blend(self, *weights: float) -> Portrait:
        """Make one portrait of all parts. Weights are not negative; their sum counts as 1."""
        return self._portrait(self.shares(weights))

    def layered(self, *starts: int) -> Portrait:
        """Make one portrait whose layers come from one part after the other; the next one takes over at each start."""
        return self._portrait(self.layer_shares(starts))

    def steps(self, count: int, by_layers: bool = False) -> Portraits:
        """Return portraits at equal steps from the first part to the last, through those between.

        by_layers: the next part takes over one layer after the other, from the last layer to the first. Otherwise all
        layers change together.
        """
        return Portraits(self._portrait(shares) for shares in self._path(count, by_layers))

    def heads(self, count: int, by_layers: bool = False) -> Iterator[Planes]:
        """Yield the heads of `steps` one after the other, for films: only one is in memory at a time."""
        return (self.head(shares) for shares in self._path(count, by_layers))

    def save_video(
        self,
        path: str | Path,  # .mp4, .webm or .gif
        seconds: float = 4.0,
        *,
        by_layers: bool = False,  # see `steps`
        motion: str | Path | None = None,  # of the camera, see geometry/paths.py. None = it stays in front
        fps: int = 30,
        progress: bool | None = None,  # None: a bar on terminals only
        overwrite: bool = False,
        provenance: bool = True,
    ) -> Video:
        """Film how the first part turns into the last one. Every frame is a head of its own."""
        frames, config = max(2, round(seconds * fps)), self.generator.config
        cameras = config.around([0.0] * frames) if motion is None else along(motion, config, frames)
        rest: dict[str, Any] = {"fps": fps, "progress": progress, "overwrite": overwrite}
        claim = self.claim if provenance else None
        return save_change(self.heads(frames, by_layers), path, cameras=cameras, claim=claim, **rest)

    @torch.no_grad()
    def head(self, shares: Tensor) -> Planes:  # [K, num_ws]
        """Return one head with these shares."""
        shares = shares.to(self.ws)
        ws = torch.einsum("kl,kld->ld", shares, self.ws)[None]  # [1, num_ws, w_dim]
        generator = self.generator.generator
        return Planes(generator, generator.synthesize_planes(ws, between=self._between(shares)), ws)

    def shares(self, weights: Sequence[float]) -> Tensor:  # [K, num_ws]
        """Return the same shares for all layers."""
        if len(weights) != len(self):
            raise ValueError(f"{len(weights)} weights for {len(self)} parts; give one for each")
        numbers = [check_number("weight", weight) for weight in weights]
        if min(numbers) < 0 or not sum(numbers):
            raise ValueError(f"weights {numbers}: must not be negative, and at least one must be above 0")
        return (torch.tensor(numbers) / sum(numbers))[:, None].expand(-1, self.num_layers)

    def layer_shares(self, starts: Sequence[int]) -> Tensor:  # [K, num_ws]
        """Return shares of 0 and 1: part k has the layers from starts[k - 1] to starts[k]."""
        edges = [0, *(check_int("layer", start, 1) for start in starts), self.num_layers]
        if len(starts) != len(self) - 1 or edges != sorted(set(edges)):
            raise ValueError(
                f"layers {list(starts)}: must be {len(self) - 1} ascending numbers from 1 to {self.num_layers - 1}, "
                "one for each part after the first"
            )
        shares = torch.zeros(len(self), self.num_layers)
        for k, (first, end) in enumerate(zip(edges, edges[1:], strict=False)):
            shares[k, first:end] = 1
        return shares

    def _path(self, count: int, by_layers: bool) -> Iterator[Tensor]:  # [K, num_ws] each
        """Return an iterator over the shares of equal steps. The count is checked at once, not at the first step."""
        positions = torch.linspace(0, len(self) - 1, check_int("steps", count, 2))  # in parts
        places = torch.arange(len(self))
        if by_layers:
            return (self._taken_over(float(at)) for at in positions)
        return (self.shares((1 - (places - at).abs()).clamp(min=0).tolist()) for at in positions)

    def _taken_over(self, position: float) -> Tensor:  # [K, num_ws]
        """Return the shares at a place between two parts, of which the next has the last layers and some of one."""
        part = min(int(position), len(self) - 2)
        order = torch.arange(self.num_layers - 1, -1, -1)  # when each layer changes
        taken = ((position - part) * self.num_layers - order).clamp(0, 1)
        shares = torch.zeros(len(self), self.num_layers)
        shares[part], shares[part + 1] = 1 - taken, taken
        return shares

    def _portrait(self, shares: Tensor) -> Portrait:
        head = self.head(shares)
        (views,) = head.views(self.cameras)
        whole = [k for k, own in enumerate(shares) if bool((own == 1).all())]
        if whole:
            return Portrait(self.prompts[whole[0]], self.seeds[whole[0]], head, views, self.claim)
        return Portrait(self._name(shares), None, head, views, self.claim)

    def _name(self, shares: Tensor) -> str:
        """Return a text that says what was mixed: shares, and layers where they differ."""
        same_prompt = len(set(self.prompts)) == 1
        parts = []
        for k, own in enumerate(shares):
            name = f"seed {self.seeds[k]}" if same_prompt else self.prompts[k]
            used = own.nonzero().flatten().tolist()
            if not used:
                continue
            layers = bool((own != own[0]).any())
            parts.append(f"{name} in layers {used[0]} to {used[-1]}" if layers else f"{float(own[0]):.2f} {name}")
        return (f"{self.prompts[0]}: " if same_prompt else "") + " + ".join(parts)

    def _between(self, shares: Tensor) -> Between | None:
        adapters = self.generator.adapters
        if not len(adapters) or self.strength == 0:
            return None
        layers = first_layers(self.generator)

        def adapt(resolution: int, x: Tensor) -> Tensor:  # [1, C, H, W]
            if str(resolution) not in adapters:
                return x
            told = adapters[str(resolution)](x.expand(len(self), -1, -1, -1), self.text.words, self.text.mask)
            own = shares[:, layers[2 * resolution], None, None, None].to(x.dtype)  # [K, 1, 1, 1]
            return x + self.strength * (own * (told - x)).sum(0, keepdim=True)

        return adapt


def first_layers(generator: PortraitGenerator) -> dict[int, int]:
    """Return the index of the first w of each block of the backbone, by resolution.

    An adapter changes what the next block reads, so it gets the shares of that block's first w.
    """
    found, index = {}, 0
    synthesis = generator.generator.backbone.synthesis
    for resolution, block in zip(synthesis.resolutions, synthesis.blocks(), strict=True):
        found[resolution] = index
        index += block.num_convs
    return found
