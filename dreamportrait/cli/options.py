"""Options that several commands share, and what these commands check before anything heavy is imported."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dreamportrait.core.files import check_writable
from dreamportrait.systems.dreamportrait.hub import is_hub_id
from dreamportrait.systems.dreamportrait.names import locate_portrait

if TYPE_CHECKING:
    from dreamportrait.export.portraits import Portrait
    from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline

Command = TypeVar("Command", bound=Callable[..., Any])


def _one_prompt(context: click.Context, argument: click.Parameter, words: tuple[str, ...]) -> str:
    """Return the only word. Raise UsageError for several, because then quotes are missing."""
    if len(words) > 1:
        joined = " ".join(words)
        raise click.UsageError(
            f'this command makes one portrait, and got {len(words)} texts: put the prompt in quotes, "{joined[:100]}"'
        )
    return words[0]


prompt = click.argument("prompt", nargs=-1, required=True, metavar="PROMPT", callback=_one_prompt)
model = click.option(
    "--model", default="mini", show_default=True, help="mini, a folder written by training, or owner/name on the hub."
)
SEEDS = click.IntRange(0, 2**63 - 1)
seed = click.option("--seed", type=SEEDS, default=0, show_default=True, help="Seed of the identity.")
truncation = click.option(
    "--truncation",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="Smaller values are closer to the average face, before the text acts.",
)
strength = click.option(
    "--strength",
    type=click.FloatRange(0, 1.5),
    default=1.0,
    show_default=True,
    help="How much the text acts: 0 shows the seed's own face, more than 1 exaggerates.",
)
device = click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: the GPU, if there is one.")
offline = click.option("--offline", is_flag=True, help="Never use the network.")
overwrite = click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
provenance = click.option(
    "--no-provenance",
    "provenance",
    flag_value=False,
    default=True,
    help="Do not write into the file that it was made by AI.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")


@dataclass(frozen=True)
class Making:
    """The values of the options that all commands have that make heads from prompts and write a file."""

    model: str
    truncation: float
    strength: float
    device: str | None
    offline: bool
    overwrite: bool
    provenance: bool
    as_json: bool

    def load(self) -> "DreamPortraitPipeline":
        return load(self.model, self.device, self.offline)

    def portrait(self, prompt: str, seed: int) -> "Portrait":
        return self.load()(prompt, seed, truncation=self.truncation, strength=self.strength)

    def origin(self, portrait: "Portrait") -> dict[str, Any] | None:
        """Return what the written file says about its origin."""
        return portrait.claim.to_dict() if self.provenance else None


def gathered(kind: type, name: str, *given: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Return a decorator that adds options to a command. Their values come as one argument, a dataclass `kind`."""

    def decorate(command: Any) -> Any:
        @functools.wraps(command)
        def with_one(**values: Any) -> None:
            made = kind(**{field.name: values.pop(field.name) for field in dataclasses.fields(kind)})
            command(**values, **{name: made})

        found: Any = with_one
        for option in reversed(given):
            found = option(found)
        return found

    return decorate


makes_heads = gathered(Making, "making", model, truncation, strength, device, offline, overwrite, provenance, as_json)


def out(what: str, default: str) -> Callable[[Command], Command]:
    """Return the option --out. what: the file that is written; default: how it is named if the option is left out."""
    text = f"{what} Default: {default}."
    option: Callable[[Command], Command] = click.option("--out", type=click.Path(path_type=Path), help=text)
    return option


def check_place(path: Path, source: str) -> None:
    """Raise an error unless files can be written beside `path` and the model is there.

    A hub's model is looked for later.
    """
    check_writable(path)
    if not is_hub_id(source):
        locate_portrait(source)


def load(source: str, device: str | None, offline: bool) -> "DreamPortraitPipeline":
    """Load a pipeline on the given device, or on the GPU if there is one."""
    from dreamportrait.core.machine import find_device
    from dreamportrait.pipeline import DreamPortraitPipeline

    return DreamPortraitPipeline.from_pretrained(source, device=find_device(device), offline=offline)
