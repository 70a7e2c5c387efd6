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

_CHUNK_PIXELS = 500 * 64 * 64  # takes one or two seconds, far longer than starting a process
_ROOT = Path(__file__).resolve().parents[2]

Faces = tuple[Array, Array]  # images [n, 3, R, R] uint8, depth [n, R, R] float16


def rendered(codes: Array, cameras: Array, resolution: int, workers: int) -> Iterator[Faces]:  # [N, Z_DIM], [N, 25]
    """Render faces in order, with `workers` processes.

    Yield up to 500 faces of 64 x 64 pixels at a time, or fewer if they are larger.
    """
    size = max(16, _CHUNK_PIXELS // resolution**2)
    chunks = [(codes[i : i + size], cameras[i : i + size]) for i in range(0, len(codes), size)]
    if len(chunks) == 1 or workers == 1:
        yield from (render_faces(*chunk, resolution) for chunk in chunks)
        return
    with ThreadPoolExecutor(workers) as pool:  # the threads only wait for their processes
        yield from pool.map(partial(_render_apart, resolution=resolution), *zip(*chunks, strict=True))


def render_faces(codes: Array, cameras: Array, resolution: int) -> Faces:
    """Render faces in this process."""
    pictures = [render(*read_code(z), camera, resolution) for z, camera in zip(codes, cameras, strict=True)]
    images = np.stack([picture.image.transpose(2, 0, 1) for picture in pictures])  # [n, 3, R, R]
    return images, np.stack([picture.depth for picture in pictures]).astype(np.float16)


def _render_apart(codes: Array, cameras: Array, resolution: int) -> Faces:
    """Render faces in a separate process."""
    paths = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        np.save(folder / "codes.npy", codes)
        np.save(folder / "cameras.npy", cameras)
        command = [sys.executable, "-m", "dreamportrait.miniworld.rendering", scratch, str(resolution)]
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"a process that renders faces ended with {done.returncode}: {done.stderr[-2000:]}")
        return np.load(folder / "images.npy"), np.load(folder / "depth.npy")


def _main(scratch: str, resolution: str) -> None:
    folder = Path(scratch)
    codes, cameras = np.load(folder / "codes.npy"), np.load(folder / "cameras.npy")
    images, depth = render_faces(codes, cameras, int(resolution))
    np.save(folder / "images.npy", images)
    np.save(folder / "depth.npy", depth)


if __name__ == "__main__":
    _main(*sys.argv[1:])
