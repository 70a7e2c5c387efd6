"""Rendering of many faces by several processes.

    for images, depth in rendered(codes, cameras, resolution=64, workers=8): ...

Each process is a separate command (`python -m dreamportrait.miniworld.rendering FOLDER RESOLUTION`) that reads and
writes NumPy files. Processes of `multiprocessing` would import the calling script again, and would fail if it has no
`if __name__ == "__main__"`.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy import ndarray as Array

from dreamportrait.miniworld.attributes import read_code
from dreamportrait.miniworld.faces import render
from dreamportrait.miniworld.styles import Look

_CHUNK_PIXELS = 500 * 64 * 64  # takes one or two seconds, far longer than starting a process
_ROOT = Path(__file__).resolve().parents[2]

Faces = tuple[Array, Array]  # images [n, 3, R, R] uint8, depth [n, R, R] float16


def rendered(
    codes: Array,  # [N, Z_DIM]
    cameras: Array,  # [N, 25]
    resolution: int,
    workers: int,
    looks: Array | None = None,  # [N, 3] rows of styles.Look; None = plain faces
) -> Iterator[Faces]:
    """Render faces in order, with `workers` processes.

    Yield up to 500 faces of 64 x 64 pixels at a time, or fewer if they are larger.
    """
    size = max(16, _CHUNK_PIXELS // resolution**2)
    looks = plain_looks(len(codes)) if looks is None else looks
    starts = range(0, len(codes), size)
    chunks = [(codes[i : i + size], cameras[i : i + size], looks[i : i + size]) for i in starts]
    if len(chunks) == 1 or workers == 1:
        yield from (render_faces(*chunk[:2], resolution, chunk[2]) for chunk in chunks)
        return
    with ThreadPoolExecutor(workers) as pool:  # the threads only wait for their processes
        yield from pool.map(partial(_render_apart, resolution=resolution), *zip(*chunks, strict=True))


def plain_looks(count: int) -> Array:  # [count, 3]
    """Return the rows of looks without a style."""
    return np.tile(np.array(Look(None).row(), np.int16), (count, 1))


def render_faces(codes: Array, cameras: Array, resolution: int, looks: Array | None = None) -> Faces:
    """Render faces in this process."""
    rows = plain_looks(len(codes)) if looks is None else looks
    pictures = [
        render(*read_code(z), camera, resolution, Look.from_row(row))
        for z, camera, row in zip(codes, cameras, rows, strict=True)
    ]
    images = np.stack([picture.image.transpose(2, 0, 1) for picture in pictures])  # [n, 3, R, R]
    return images, np.stack([picture.depth for picture in pictures]).astype(np.float16)


def _render_apart(codes: Array, cameras: Array, looks: Array, resolution: int) -> Faces:
    """Render faces in a separate process."""
    paths = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        np.save(folder / "codes.npy", codes)
        np.save(folder / "cameras.npy", cameras)
        np.save(folder / "looks.npy", looks)
        command = [sys.executable, "-m", "dreamportrait.miniworld.rendering", scratch, str(resolution)]
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"a process that renders faces ended with {done.returncode}: {done.stderr[-2000:]}")
        return np.load(folder / "images.npy"), np.load(folder / "depth.npy")


def _main(scratch: str, resolution: str) -> None:
    folder = Path(scratch)
    codes, cameras, looks = (np.load(folder / f"{name}.npy") for name in ("codes", "cameras", "looks"))
    images, depth = render_faces(codes, cameras, int(resolution), looks)
    np.save(folder / "images.npy", images)
    np.save(folder / "depth.npy", depth)


if __name__ == "__main__":
    _main(*sys.argv[1:])
