"""The study of from-portrait: how close a fitted head comes to its portrait, in depth and in attributes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dreamportrait.geometry.views import Views
from dreamportrait.metrics.world_oracle import AttributeReader
from dreamportrait.mini.head.kept import check_settings, each
from dreamportrait.mini.models import from_pretrained
from dreamportrait.miniworld.attributes import ATTRIBUTES, is_visible
from dreamportrait.miniworld.world import load
from dreamportrait.pipeline import DreamPortraitPipeline
from dreamportrait.systems.heads.fit import YAWS, around, from_views
from dreamportrait.systems.heads.head import Head
from dreamportrait.systems.heads.render import reduced, render

STICKS_OUT = ("hair_style", "hat", "hat_color", "earrings")  # no texture on a bald mesh shows these
FRONT = YAWS.index(0.0)


class Fitted(NamedTuple):
    prompt: str
    depth: float  # mean error inside of both silhouettes, in heights of the head
    kept: dict[str, bool]  # whether the head shows an attribute as the portrait does


def run(out: Path, count: int, report: Callable[[str], object] = print) -> list[Fitted]:
    """Fit heads to portraits of the first validation captions. The same folder continues an interrupted study."""
    check_settings(out, {"study": "portraits"})
    pipe, model = DreamPortraitPipeline.from_pretrained("mini"), from_pretrained("mini/head")
    world, reader = load("validation", 1000), from_pretrained("mini/oracle")

    def fitted(i: int) -> dict[str, Any]:
        prompt = world.evaluation_caption(i)
        seen = around(pipe(prompt, i).head)
        found = compared(from_views(model, seen), seen, reader, prompt)
        report(f"{i + 1} of {count}: depth {found.depth:.4f}, kept {sum(found.kept.values())} of {len(found.kept)}")
        return found._asdict()

    return [Fitted(**found) for found in each(out / "portraits", count, fitted)]


@torch.no_grad()
def compared(head: Head, seen: Views, reader: AttributeReader, prompt: str) -> Fitted:
    """Compare a head with the views that it was fitted to."""
    size = seen.depth.shape[-1]
    drawn = render(head.vertices[None], head.model, head.texture, seen.cameras, size, torch.zeros(3))
    both = (seen.opacity > 0.95) & (drawn.mask > 0.95)
    depth = float((drawn.depth - seen.depth).abs()[both].mean()) / head.model.height
    # The wall of the portrait behind the head, so that backgrounds do not differ.
    side = seen.colors.shape[-1]
    front = render(head.vertices[None], head.model, head.texture, seen.cameras[FRONT][None], 2 * side, torch.zeros(3))
    image, mask = reduced(front.image), reduced(front.mask)
    wall = seen.colors[FRONT][None]
    picture = image * (mask > 0.5) + wall * (mask <= 0.5)
    before, after = reader.read(wall)[0], reader.read(picture)[0]
    names = [name for name in ATTRIBUTES if name not in (*STICKS_OUT, "background") and is_visible(before, name)]
    return Fitted(prompt, depth, {name: before[name] == after[name] for name in names})


def summary(found: Sequence[Fitted]) -> dict[str, float]:
    kept = [value for run in found for value in run.kept.values()]
    return {
        "portraits": len(found),
        "depth error, of the height": sum(run.depth for run in found) / len(found),
        "attributes kept, %": 100 * sum(kept) / len(kept),
    }
