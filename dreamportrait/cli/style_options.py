"""Options and checks that the commands of the group `style` share."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dreamportrait.cli import options
from dreamportrait.core.files import check_target, check_writable
from dreamportrait.systems.freestyle.names import locate_model

if TYPE_CHECKING:
    from dreamportrait.export.portraits import Portrait
    from dreamportrait.systems.freestyle.pipeline import StylePipeline

Command = TypeVar("Command", bound=Callable[..., Any])
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


def with_model(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of Model to a command. Their values come as one argument, `named`."""

    @functools.wraps(command)
    def with_named(**values: Any) -> None:
        made = Model(**{field.name: values.pop(field.name) for field in dataclasses.fields(Model)})
        command(**values, named=made)

    found = with_named
    for option in reversed(
        (
            click.option("--model", default="mini", show_default=True, help="mini, or a folder written by training."),
            click.option("--generator", help="The model's generator, if it has moved: a name or a folder."),
            click.option("--editor", help="Another editor of pictures: a name or a folder."),
            options.device,
            options.offline,
        )
    ):
        found = option(found)
    return found


def check_photo(photo: Path) -> None:
    if not photo.is_file():
        raise FileNotFoundError(f"{photo} is not there; name a picture")


def check_pictures(out: Path, save: Path | None, overwrite: bool) -> None:
    """Raise an error unless a sheet, and a portrait, may be written."""
    from dreamportrait.cli.saving import check_saved

    check_writable(check_target(out, overwrite))
    if save is not None:
        check_saved(save, overwrite)


def write(portrait: "Portrait", out: Path, save: Path | None, overwrite: bool, provenance: bool) -> None:
    """Write the sheet of a portrait, and the portrait itself if it is asked for."""
    from dreamportrait.cli.saving import save_as

    portrait.save_sheet(out, overwrite=overwrite, provenance=provenance)
    if save is not None:
        save_as(portrait, save, overwrite, provenance)
