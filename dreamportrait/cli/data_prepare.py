"""The command `data prepare`, also in the forms that datasets/ has for published layouts."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from dreamportrait.core.errors import one_message

LAYOUTS = ("folder", "celeba-text-hq", "ffhq-text", "eg3d")  # those of dreamportrait.data.preparation.layouts
KINDS = ("jpg", "png", "webp")
a_path = click.Path(path_type=Path)

OPTIONS = (
    click.argument("source", metavar="IN", type=a_path),
    click.argument("out", metavar="OUT", type=a_path),
    click.option(
        "--resolution", type=click.IntRange(16, 4096), default=512, show_default=True, help="Of the pictures."
    ),
    click.option(
        "--kind",
        type=click.Choice(KINDS),
        default="jpg",
        show_default=True,
        help="Of the files in the shards; png and webp lose nothing, and take longer to read.",
    ),
    click.option("--quality", type=click.IntRange(1, 100), default=95, show_default=True, help="Of jpg."),
    click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes."),
    click.option("--captions", type=a_path, help="JSONL or CSV to use instead of the captions in IN."),
    click.option("--landmarks", type=a_path, help="landmarks.jsonl of another detector; then no network is needed."),
    click.option("--networks", type=a_path, help="The wheel with the face networks. Default: the cache, else pip."),
    click.option("--offline", is_flag=True, help="Download nothing."),
    click.option("--aligned", is_flag=True, help="Pictures are crops already, and --poses or IN has their cameras."),
    click.option("--poses", type=a_path, help="dataset.json, or a folder of .mat or .npz files; with --aligned."),
    click.option("--largest-face", is_flag=True, help="Of several faces take the largest, instead of dropping."),
    click.option(
        "--least-side",
        type=click.IntRange(min=1),
        default=128,
        show_default=True,
        help="Pixels that a crop must have in its photograph.",
    ),
    click.option(
        "--most-outside",
        type=click.FloatRange(0, 1),
        default=0.3,
        show_default=True,
        help="Share of a crop that may lie outside of its photograph.",
    ),
    click.option(
        "--mirror", is_flag=True, help="Add mirror images to the training split, without captions that name a side."
    ),
    click.option(
        "--per-shard", type=click.IntRange(min=1), default=1000, show_default=True, help="Pictures in a shard."
    ),
    click.option("--overwrite", is_flag=True, help="Replace OUT if it is a prepared data set."),
)


def make_prepare(layout: str | None, text: str) -> click.Command:
    """Return the command for one layout, or with an option --layout."""
    options = list(OPTIONS)
    if layout is None:
        options.append(
            click.option("--layout", type=click.Choice(LAYOUTS), default="folder", show_default=True, help="Of IN.")
        )

    def prepare(**given: Any) -> None:
        with one_message():
            run(given.pop("layout", layout), **given)

    for option in reversed(options):
        prepare = option(prepare)
    return click.command("prepare", help=text)(prepare)


def run(layout: str, source: Path, out: Path, **given: Any) -> None:
    """Prepare a data set and say how it went."""
    from dreamportrait.data.preparation.run import prepare
    from dreamportrait.data.preparation.settings import Settings
    from dreamportrait.data.preparation.steps import Networks

    aligned = given["aligned"] or layout == "eg3d"
    same = ("resolution", "kind", "quality", "per_shard", "least_side", "most_outside", "mirror")
    settings = Settings(layout, aligned=aligned, largest=given["largest_face"], **{name: given[name] for name in same})
    with continued(), Bars() as bars:
        outcome = prepare(
            source,
            out,
            settings,
            workers=given["workers"],
            captions=given["captions"],
            landmarks=given["landmarks"],
            poses=given["poses"],
            networks=Networks(given["networks"], given["offline"]),
            overwrite=given["overwrite"],
            report=bars,
        )
    if outcome.existed:
        click.echo(f"{out} holds this already: {outcome.pictures} pictures")
    else:
        click.echo(f"wrote {out}: {outcome.pictures} pictures, {sum(outcome.dropped.values())} dropped")
    for reason, count in sorted(outcome.dropped.items(), key=lambda item: -item[1]):
        click.echo(f"  {count:6d} dropped: {reason}")


@contextmanager
def continued() -> Iterator[None]:
    """Say what a user who stops the command can do."""
    try:
        yield
    except KeyboardInterrupt:
        raise click.ClickException("stopped; the same command continues where it was") from None


class Bars:
    """A progress bar for each step, where the output is a terminal."""

    def __init__(self) -> None:
        self._bars: dict[str, Any] = {}

    def __call__(self, step: str, done: int, count: int) -> None:
        from tqdm import tqdm  # type: ignore[import-untyped]

        if step not in self._bars:
            self._bars[step] = tqdm(total=count, initial=done, desc=step, unit="photo", disable=None)
        self._bars[step].update(done - self._bars[step].n)

    def __enter__(self) -> "Bars":
        return self

    def __exit__(self, *error: object) -> None:
        for bar in self._bars.values():
            bar.close()
