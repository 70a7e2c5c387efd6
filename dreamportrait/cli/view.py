"""The command `view`, which opens the viewer for a browser."""

import json
from collections.abc import Callable
from functools import cache
from importlib import util
from typing import TYPE_CHECKING

import click

from dreamportrait.cli import options
from dreamportrait.core.errors import one_message
from dreamportrait.systems.dreamportrait.hub import is_hub_id
from dreamportrait.systems.dreamportrait.names import locate_portrait
from dreamportrait.systems.freestyle.names import MINI, locate_model

if TYPE_CHECKING:
    from dreamportrait.systems.freestyle.pipeline import StylePipeline


@click.command()
@options.model
@click.option("--styles", metavar="MODEL", help="A free-style model, for Restyle.  [default: mini with --model mini]")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="If taken: the next free.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Only addresses of this machine are allowed.")
@click.option("--open", "browse", is_flag=True, help="Also open a browser here.")
@options.device
@options.offline
@options.provenance
@click.option("--json", "as_json", is_flag=True, help="Print the address as JSON, in one line.")
def view(
    model: str,
    styles: str | None,
    port: int,
    host: str,
    browse: bool,
    device: str | None,
    offline: bool,
    provenance: bool,
    as_json: bool,
) -> None:
    """Make portraits and turn them in a browser. Ctrl-C ends the viewer.

    The viewer has no password, so it only listens on this machine. If it runs on another one, such as a server without
    a screen, forward the port to yours:

    \b
        ssh -N -L 8080:127.0.0.1:8080 HOST

    \b
    Examples:
        dreamportrait view --open
        dreamportrait view --model runs/mini/portrait --port 9000
        dreamportrait view --model runs/ffhq/portrait --styles runs/i2t_ffhq/i2t
    """
    with one_message():
        if util.find_spec("viser") is None:
            raise ValueError("the viewer needs viser, which is not installed: pip install 'dreamportrait[view]'")
        from dreamportrait.viewer.access import check_host

        check_host(host, port)
        if not is_hub_id(model):
            locate_portrait(model)  # before anything heavy is imported
        load_styles = restyling(model, styles, device, offline)
        import rich

        from dreamportrait.viewer.server import Viewer

        pipe = options.load(model, device, offline)
        pipe.set_progress_bar_config(disable=True)
        rich.reconfigure(stderr=True)  # viser prints its own lines through it; stdout is the address
        viewer = Viewer(pipe, host=host, port=port, styles=load_styles, provenance=provenance)
    with viewer:
        try:  # from the line on that tells people about Ctrl-C
            if as_json:
                click.echo(json.dumps({"address": viewer.address, "model": model}))
            else:
                click.echo(f"open {viewer.address} in a browser; Ctrl-C ends the viewer")
            if browse:
                click.launch(viewer.address)
            viewer.wait()
        except KeyboardInterrupt:
            click.echo("the viewer has ended", err=as_json)


def restyling(
    model: str, styles: str | None, device: str | None, offline: bool
) -> "Callable[[], StylePipeline] | None":
    """Return a function that loads the free-style model at its first call. None = there is none for this model."""
    if styles is None and model != MINI:
        return None
    source = styles or MINI
    locate_model(source)  # before anything heavy is imported

    @cache
    def load() -> "StylePipeline":
        from dreamportrait.core.machine import find_device
        from dreamportrait.systems.freestyle.pipeline import StylePipeline

        return StylePipeline.from_pretrained(source, device=find_device(device), offline=offline)

    return load
