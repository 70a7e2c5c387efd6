"""One HTML file that turns a head: it opens without a server and without the network, for sending to somebody.

save_page(portrait.head, "head.html", title=portrait.prompt, claim=claim)

The file holds the generator's own pictures from a grid of cameras within the trained range, as one WebP picture, and
shows the blend of the four that are nearest to where the head is turned. There is no library in it.
"""

import base64
import io
import json
import math
from html import escape
from pathlib import Path
from string import Template
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from dreamportrait.core.files import check_free_file, write_text
from dreamportrait.eg3d.planes import Planes, trained_angles
from dreamportrait.export.progress import Report, silent
from dreamportrait.export.provenance import Claim, mark
from dreamportrait.export.sheets import enlarged
from dreamportrait.geometry.images import to_bytes
from eg3d_ops._checks import check_int

STEP = 3.0  # degrees between views; blends of views that are further apart look double
WIDEST = (45.0, 20.0)  # degrees of yaw and pitch; the limit for models that were trained all around
LARGEST = 256  # pixels of a view by default
QUALITY = 88  # of the picture
SIDE = 16383  # pixels; WebP allows no more


class Page(NamedTuple):
    """What was written."""

    columns: int
    rows: int
    size: int  # of each view, in pixels
    bytes: int


def check_page_target(path: str | Path, overwrite: bool = False) -> Path:
    """Raise an error unless a page may be written to `path`; return the path."""
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{path}: a page must end in .html")
    return check_free_file(path, overwrite)


def save_page(
    head: Planes,  # one head
    path: str | Path,  # .html
    *,
    title: str,  # shown below the head, such as the prompt
    claim: Claim | None,  # what the file says about its origin. None = nothing
    size: int | None = None,  # pixels of each view. None = as rendered, at most 256
    overwrite: bool = False,
    report: Report = silent,
) -> Page:
    """Render a head from a grid of cameras and write them as a page in which it can be turned and enlarged."""
    if len(head) != 1:
        raise ValueError(f"{len(head)} heads: a page shows one; choose it with heads[i]")
    path = check_page_target(path, overwrite)
    yaws, pitches = (
        _angles(min(limit, most)) for limit, most in zip(trained_angles(head.generator), WIDEST, strict=True)
    )
    largest = SIDE // max(len(yaws), len(pitches))
    if size is None:
        size = min(head.generator.config.image_resolution, LARGEST)
    elif not 16 <= check_int("size", size) <= largest:
        raise ValueError(f"size={size}: must be within 16 .. {largest}; the page holds {len(yaws)} views side by side")
    picture = _grid(head, yaws, pitches, size, report)
    html = _html(_webp(picture, claim), yaws, pitches, size, title, claim)
    write_text(path, html)
    return Page(len(yaws), len(pitches), size, len(html.encode()))


def _angles(limit: float) -> list[float]:
    """Return angles from -limit to limit with steps of at most about STEP, with 0 among them."""
    half = max(math.ceil(limit / STEP), 1)
    return torch.linspace(-limit, limit, 2 * half + 1).tolist()


@torch.no_grad()
def _grid(head: Planes, yaws: list[float], pitches: list[float], size: int, report: Report) -> Image.Image:
    """Draw the views: yaw grows to the right, pitch grows downwards."""
    sheet = Image.new("RGB", (size * len(yaws), size * len(pitches)))
    for row, pitch in enumerate(pitches):
        for column, camera in enumerate(head.generator.config.around(yaws, pitch)):
            report((row * len(yaws) + column) / (len(yaws) * len(pitches)))
            sheet.paste(enlarged(_view(head, camera), size), (column * size, row * size))
    return sheet


def _view(head: Planes, camera: Tensor) -> Image.Image:  # [25]
    return Image.fromarray(to_bytes(head.view(camera[None]).image.float())[0])


def _webp(picture: Image.Image, claim: Claim | None) -> bytes:
    content = io.BytesIO()
    picture.save(content, "WEBP", quality=QUALITY, method=6)
    return mark(content.getvalue(), claim) if claim else content.getvalue()


def _html(picture: bytes, yaws: list[float], pitches: list[float], size: int, title: str, claim: Claim | None) -> str:
    facts = {"columns": len(yaws), "rows": len(pitches), "size": size, "yaw": yaws[-1], "pitch": pitches[-1]}
    return Template(_PAGE).substitute(
        title=escape(title or "portrait"),
        facts=json.dumps(facts),
        picture=base64.b64encode(picture).decode(),
        generator=escape(claim.summary()) if claim else "DreamPortrait",
        origin=escape(claim.summary()) if claim else "",
        provenance=json.dumps(claim.extras() if claim else {}).replace("<", "\\u003c"),
    )


# Dragging to the right turns the face to the right, so the camera goes to the left. The policy forbids the page
# everything that would need the network.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="$generator">
<title>$title</title>
<style>
  html, body { height: 100%; margin: 0; background: #202226; color: #ddd; font: 16px system-ui, sans-serif }
  body { display: flex; flex-direction: column; align-items: center; overflow: hidden }
  main { flex: 1; min-height: 0; width: 100%; display: flex; align-items: center; justify-content: center }
  canvas { width: min(100vw, 100vh - 6em); aspect-ratio: 1; cursor: grab; touch-action: none }
  canvas:active { cursor: grabbing }
  p { margin: 0.3em 1em; text-align: center; overflow-wrap: anywhere }
  small { color: #999 }
</style>
</head>
<body>
<main>
  <canvas id="head" tabindex="0" role="img" aria-label="$title; drag or use the arrow keys to turn it"></canvas>
</main>
<p>$title</p>
<p><small>drag to turn, wheel or pinch to enlarge, double click for the front. $origin</small></p>
<script type="application/json" id="provenance">$provenance</script>
<script>
"use strict";
const facts = $facts, canvas = document.getElementById("head"), pen = canvas.getContext("2d");
const views = new Image(), fingers = new Map();
let yaw = 0, pitch = 0, zoom = 1, waiting = false;
const within = (x, low, high) => Math.min(Math.max(x, low), high);

function draw() {
  waiting = false;
  const pixels = Math.round(canvas.clientWidth * devicePixelRatio);
  if (canvas.width !== pixels) canvas.width = canvas.height = pixels;
  pen.imageSmoothingQuality = "high";
  const x = (yaw / facts.yaw + 1) / 2 * (facts.columns - 1), y = (pitch / facts.pitch + 1) / 2 * (facts.rows - 1);
  const column = Math.min(Math.floor(x), facts.columns - 2), row = Math.min(Math.floor(y), facts.rows - 2);
  const size = facts.size, edge = (1 - zoom) / 2 * pixels;
  let drawn = 0;  // share of the views so far; drawing with alpha = own / (drawn + own) gives the weighted mean
  for (const [i, j] of [[0, 0], [1, 0], [0, 1], [1, 1]]) {
    const own = (i ? x - column : 1 - x + column) * (j ? y - row : 1 - y + row);
    if (own < 1e-3) continue;
    pen.globalAlpha = own / (drawn += own);
    pen.drawImage(views, (column + i) * size + 0.5, (row + j) * size + 0.5, size - 1, size - 1,
                  edge, edge, zoom * pixels, zoom * pixels);
  }
}
function turn(right, up, closer) {
  yaw = within(yaw + right, -facts.yaw, facts.yaw);
  pitch = within(pitch + up, -facts.pitch, facts.pitch);
  zoom = within(zoom * closer, 1, 4);
  canvas.dataset.yaw = yaw.toFixed(1); canvas.dataset.pitch = pitch.toFixed(1); canvas.dataset.zoom = zoom.toFixed(2);
  if (!waiting) { waiting = true; requestAnimationFrame(draw); }
}
const apart = () => { const [a, b] = [...fingers.values()]; return Math.hypot(a.x - b.x, a.y - b.y); };
canvas.onpointerdown = event => {
  canvas.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, {x: event.clientX, y: event.clientY});
};
canvas.onpointerup = canvas.onpointercancel = event => fingers.delete(event.pointerId);
canvas.onpointermove = event => {
  const last = fingers.get(event.pointerId);
  if (!last) return;
  const before = fingers.size === 2 ? apart() : 0, scale = 100 / canvas.clientWidth;  // degrees a pixel
  fingers.set(event.pointerId, {x: event.clientX, y: event.clientY});
  if (fingers.size === 1) turn((last.x - event.clientX) * scale, (event.clientY - last.y) * scale, 1);
  else if (before) turn(0, 0, apart() / before);
};
canvas.onwheel = event => { event.preventDefault(); turn(0, 0, Math.exp(-event.deltaY / 500)); };
canvas.ondblclick = () => { zoom = 1; turn(-yaw, -pitch, 1); };
canvas.onkeydown = event => {
  const step = {ArrowLeft: [2, 0], ArrowRight: [-2, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
  if (step) { event.preventDefault(); turn(...step, 1); }
};
onresize = () => turn(0, 0, 1);
views.onload = () => { turn(0, 0, 1); document.body.dataset.ready = "yes"; };
views.src = "data:image/webp;base64,$picture";
</script>
</body>
</html>
"""
