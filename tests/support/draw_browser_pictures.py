"""Draw the pictures of docs that a browser makes, again: meshes in three.js, and the page of the viewer.

make test-viewers                                    # installs three.js into .node
python tests/support/draw_browser_pictures.py [--out docs/pictures] [--only mesh,viewer]

Both need Chromium. Run it when the weights change, and look at the pictures.
"""

import os
import tempfile
from pathlib import Path

import click
import numpy as np
import pytest
from chromium import opened
from npm_tools import drawn_by_three
from PIL import Image
from places import ROOT
from viewer_page import Page

from dreamportrait import DreamPortraitPipeline
from dreamportrait.core.errors import one_message
from dreamportrait.export.sheets import enlarged, save_picture
from dreamportrait.viewer.server import Viewer

HEADS = {"a woman with red hair": 0, "a man with a beard and a green hat": 1, "a smiling woman with pink hair": 4}
SIDES = (20, -60, 180)  # degrees of yaw; the first is also drawn by the generator
SIZE = 256
TYPED = ("a bald man with a beard", "a woman with a blue hat", "an old man with a white beard", "a woman with red hair")
DRAG = ((438.0, 330.0), (478.0, 330.0))  # in the page, from the middle of the picture


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/pictures"), show_default=True)
@click.option("--only", default="mesh,viewer", show_default=True)
def main(out: Path, only: str) -> None:
    groups = {"mesh": meshes, "viewer": viewer}
    os.environ.setdefault("NODE_PATH", str(ROOT / ".node" / "node_modules"))
    with one_message():
        if unknown := set(only.split(",")) - set(groups):
            raise ValueError(f"--only {', '.join(sorted(unknown))}: must be among {', '.join(groups)}")
        pipe = DreamPortraitPipeline.from_pretrained("mini")
        pipe.set_progress_bar_config(disable=True)
        for name in only.split(","):
            try:
                picture = groups[name](pipe)
            except pytest.skip.Exception as missing:
                raise ValueError(str(missing)) from missing
            save_picture(picture, path := out / f"{name}.png", overwrite=True)
            click.echo(path)


def meshes(pipe: DreamPortraitPipeline) -> Image.Image:
    """Return a row for each head: the generator's picture, its mesh from several sides, its texture."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for prompt, seed in HEADS.items():
            portrait, path = pipe(prompt, seed), Path(folder) / f"{seed}.glb"
            mesh = portrait.mesh()
            mesh.save(path)
            assert mesh.texture is not None
            view = portrait.head.views(portrait.head.generator.config.around([SIDES[0]]))[0].images[0]
            drawn = [drawn_by_three(path, yaw)[1].resize((SIZE, SIZE)) for yaw in SIDES]
            texture = Image.fromarray(mesh.texture.pixels).resize((SIZE, SIZE))
            rows.append(np.concatenate([enlarged(Image.fromarray(view), SIZE), *drawn, texture], 1))
    return Image.fromarray(np.concatenate(rows))


def viewer(pipe: DreamPortraitPipeline) -> Image.Image:
    """Return a screenshot of the page after a few portraits, of which the last is turned."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        Viewer(pipe, port=0) as served,
        opened(Path(folder)) as tab,
    ):
        tab.open(served.address)
        page = Page(tab, Path(folder))
        shown = page.arrive()
        for prompt in TYPED:
            page.type("Prompt", prompt)
            page.press("Generate")
            shown = page.changed(shown)
        tab.drag(*DRAG)
        page.changed(shown)
        with Image.open(tab.screenshot(Path(folder) / "page.png")) as shot:
            return shot.convert("RGB")


if __name__ == "__main__":
    main()
