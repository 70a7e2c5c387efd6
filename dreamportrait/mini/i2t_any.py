"""mini/i2t-any: mini/i2t-base, tuned on the edits of mini/ip2p to read edited fronts of any style.

It is tuned on ten styles; two are held out, to see what it makes of styles that it does not know.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from dreamportrait.core.files import check_new
from dreamportrait.export.sheets import Row, draw_sheet
from dreamportrait.mini.cards import LICENCE, SCORES
from dreamportrait.mini.diffusion.styled import UNSEEN
from dreamportrait.mini.i2t import EDITOR, FEW_SHOT, PERCEPTUAL, PRETRAINED
from dreamportrait.mini.style_scores import load_editor
from dreamportrait.miniworld.grammar import an
from dreamportrait.miniworld.styles import NAMES
from dreamportrait.prior.inversion import PictureFeatures
from dreamportrait.systems.freestyle.database import build_database
from dreamportrait.systems.freestyle.fewshot import FewShot, FewShotSettings
from dreamportrait.systems.freestyle.folder import load_generator_of, load_network_of, read_model, save_model
from dreamportrait.systems.freestyle.generator import PictureTo3D
from dreamportrait.systems.freestyle.instruct import InstructPix2Pix
from dreamportrait.systems.freestyle.learning import SIDES
from dreamportrait.systems.freestyle.network import ImageToTriplane
from dreamportrait.systems.freestyle.perceptual import ClipStages, Perceptual
from dreamportrait.systems.freestyle.tuning import TuneSettings, tune
from dreamportrait.text import compact_clip
from dreamportrait.weights.seals import seal

HELD_OUT = UNSEEN
KNOWN = tuple(name for name in NAMES if name not in HELD_OUT)
DATABASE = replace(FEW_SHOT, identities=96, views=4, seed=500_000)  # of each style
# The guess of w must see through a style, otherwise the head below it gets what the style looks like: sunglasses.
# With a floor, a robot's antenna grows, and ears begin to. With 48 heads of a style and a rate of .01, new heads
# show the styles less often.
TUNING = TuneSettings(steps=14_000, lr=0.005, decay=True, floor_weight=0.2, w_weight=2.0, train="all", input="edited")


@dataclass(frozen=True)
class Parts:
    """What the stage needs: folders of stages that are done."""

    base: Path  # i2t-base
    editor: Path  # ip2p
    clip: Path  # clip-s

    def styled(self, device: str) -> PictureTo3D:
        return PictureTo3D(load_network_of(self.base).to(device), load_generator_of(self.base).to(device))

    def load_editor(self, device: str) -> InstructPix2Pix:
        return load_editor(self.editor, self.clip, device)

    def perceptual(self, device: str) -> Perceptual:
        return ClipStages(PictureFeatures(compact_clip.load(self.clip).to(device)))


def train_any(
    parts: Parts,
    out: Path,
    work: Path,
    *,
    styles: tuple[str, ...] = KNOWN,
    how: FewShotSettings = DATABASE,
    settings: TuneSettings = TUNING,
    device: str = "cpu",
) -> None:
    """Tune the network of i2t-base on a database of styles, and write a free-style model. A stopped run continues."""
    check_new(out)
    base, editor = parts.styled(device), parts.load_editor(device)
    phrases = [an(name) for name in styles]
    total, done = len(styles) * how.identities * (1 + how.views), 0

    def edited(count: int) -> None:
        nonlocal done
        done += count
        if done % (10 * (1 + how.views)) == 0:
            print(f"edited {done} of {total} views", flush=True)

    data = build_database(base.generator, editor, phrases, how, work / "database", edited)
    tuned = tune(base, data, settings, work / "tuning", parts.perceptual(device))
    assert isinstance(tuned, ImageToTriplane)
    about = read_model(parts.base)
    save_model(
        out,
        tuned.cpu(),
        base.generator.cpu(),
        licence=LICENCE,
        pretrained=PRETRAINED,
        editor=EDITOR,
        perceptual=PERCEPTUAL,
        few_shot=about.few_shot,
        tuning=about.tuning,
        sheet=draw_sheet(list(shown(PictureTo3D(tuned, base.generator), data, how.identities))),
        half=True,
    )
    facts = {
        "styles": len(styles),
        "identities": len(data),
        "views": len(data.cameras),
        "held_out": ", ".join(HELD_OUT),
    }
    (out / SCORES).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    seal(out)


def shown(styled: PictureTo3D, data: FewShot, identities: int) -> Iterator[Row]:
    """Yield a row for the first identity of each style: the edited front, and three views of its head."""
    cameras = styled.generator.config.around(SIDES)
    for first in range(0, len(data), identities):
        front = data.fronts[first, None]
        (views,) = styled.heads(front).views(cameras)
        yield Row(data.styles[first], torch.cat([front, views.colors]))
