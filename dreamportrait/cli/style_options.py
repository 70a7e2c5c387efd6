"""Options and checks that the commands of the group `style` share."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dreamportrait.cli import options
from dreamportrait.cli.naming import default_name
from dreamportrait.core.files import check_target, check_writable
from dreamportrait.systems.freestyle.names import locate_model

if TYPE_CHECKING:
    from dreamportrait.export.portraits import Portrait
    from dreamportrait.systems.freestyle.pipeline import StylePipeline

STRENGTH = click.option(
    "--strength",
    type=click.FloatRange(0, 2),
    default=1.0,
    show_default=True,
    help="Of the style: 0 = the photo as it is, 1 = as learnt.",
)
crop = click.option("--crop", is_flag=True, help="Cut the middle out of a photo that is not square.")
views = click.option("--views", type=click.IntRange(min=1), default=5, show_default=True, help="Views on the sheet.")
seed = click.option("--seed", type=options.SEEDS, default=0, show_default=True, help="Seed of the editor's noise.")
save = click.option(
    "--save", type=click.Path(path_type=Path), help="Also save the portrait: .safetensors, .glb, .mp4, ..."
)


@dataclass(frozen=True)
class Model:
    """The values of the options that name a model."""

    model: str
    generator: str | None
    editor: str | None
    device: str | None
    offline: bool

    def check(self) -> Path:
        """Raise an error unless the model's folder is there; return it. Nothing is loaded."""
        return locate_model(self.model)

    def check_photo(self, photo: Path, crop: bool) -> None:
        """Raise an error unless the model is there and can read a photo. No weights are read."""
        folder = self.check()
        from dreamportrait.geometry.photos import check_photo
        from dreamportrait.systems.freestyle.folder import read_model

        check_photo(photo, crop=crop, least=read_model(folder).network.image_resolution // 2)

    def load(self) -> "StylePipeline":
        from dreamportrait.core.machine import find_device
        from dreamportrait.pipeline import StylePipeline

        return StylePipeline.from_pretrained(
            self.model,
            generator=self.generator,
            editor=self.editor,
            device=find_device(self.device),
            offline=self.offline,
        )


with_model = options.gathered(
    Model,
    "named",
    click.option("--model", default="mini", show_default=True, help="mini, or a folder written by training."),
    click.option("--generator", help="The model's generator, if it has moved: a name or a folder."),
    click.option("--editor", help="Another editor of pictures: a name or a folder."),
    options.device,
    options.offline,
)


@dataclass(frozen=True)
class Drawing:
    """The values of the options of a command that draws a head of a photo."""

    strength: float
    out: Path | None
    save: Path | None
    views: int
    crop: bool
    seed: int
    overwrite: bool
    provenance: bool
    as_json: bool

    def target(self, name: str) -> Path:
        """Return the sheet to write, after checking that it and the portrait may be written."""
        from dreamportrait.cli.saving import check_saved

        out = self.out or default_name(name, self.seed, ".png")
        check_writable(check_target(out, self.overwrite))
        if self.save is not None:
            check_saved(self.save, self.overwrite)
        return out

    def write(self, portrait: "Portrait", out: Path) -> None:
        """Write the sheet of a portrait, and the portrait itself if it is asked for."""
        from dreamportrait.cli.saving import save_as

        portrait.save_sheet(out, overwrite=self.overwrite, provenance=self.provenance)
        if self.save is not None:
            save_as(portrait, self.save, self.overwrite, self.provenance)


draws = options.gathered(
    Drawing,
    "drawing",
    STRENGTH,
    options.out("The sheet to write: .png, .jpg or .webp.", "a .png here, named after the photo"),
    save,
    views,
    crop,
    seed,
    options.overwrite,
    options.provenance,
    options.as_json,
)


def check_photo(photo: Path) -> None:
    if not photo.is_file():
        raise FileNotFoundError(f"{photo} is not there; name a picture")
