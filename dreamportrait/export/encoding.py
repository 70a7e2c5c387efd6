"""Encodes frames as MP4 (H.264), WEBM (VP9) or GIF. MP4 and WEBM need PyAV, which `dreamportrait[video]` installs."""

import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module, util
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from dreamportrait.export.credentials import find_identity
from dreamportrait.export.extraction import WEBM_TAG
from dreamportrait.export.provenance import Claim, claim_packet, mark

if TYPE_CHECKING:
    from numpy import ndarray as Array

VIDEO_SUFFIXES = (".mp4", ".webm", ".gif")
FPS = (1, 120)  # players slow GIFs down above 50, so that limit is theirs
FPS_GIF = 50
# How colours are written, in the numbers of the standard H.273. Players guess what a file does not name, and guess
# differently for small and large pictures.
BT709, LIMITED = 1, 1


class Codec(NamedTuple):
    name: str
    options: dict[str, str]
    container: dict[str, str]  # options of the container


CODECS = {
    # faststart: the index comes first, so that browsers play before the whole file is there.
    ".mp4": Codec("libx264", {"crf": "17", "preset": "medium"}, {"movflags": "faststart"}),
    ".webm": Codec("libvpx-vp9", {"crf": "24", "b": "0", "cpu-used": "4", "row-mt": "1"}, {}),
}


def check_video_target(path: str | Path, fps: int, overwrite: bool = False) -> Path:
    """Raise an error unless a video may and can be written to `path`; return the path."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in VIDEO_SUFFIXES:
        raise ValueError(f"{path}: must end in one of {', '.join(VIDEO_SUFFIXES)}")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; name another file, or allow overwriting")
    _check_folder(path)
    most = FPS_GIF if suffix == ".gif" else FPS[1]
    if not FPS[0] <= fps <= most:
        raise ValueError(f"fps={fps}: must be within {FPS[0]} .. {most} for {suffix}")
    if suffix in CODECS and util.find_spec("av") is None:
        raise ValueError(
            f"{suffix} needs PyAV, which is not installed: pip install 'dreamportrait[video]', or use .gif"
        )
    find_identity()
    return path


def _check_folder(path: Path) -> None:
    """Raise an error unless files may be written to the folder of `path`, which may be missing as yet."""
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(f"{path}: {folder} is no folder; name another file")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{path}: nothing may be written to {folder}; name a file elsewhere")


def encode(frames: Iterable["Array"], path: Path, fps: int, claim: Claim | None) -> None:
    """Write frames [H, W, 3] uint8 of one size to `path`. Without a claim, the file does not say what made it.

    The file is replaced when it is complete; an interrupted run leaves what was there.
    """
    suffix = path.suffix.lower()
    with replacing(path) as unfinished:
        write: Callable[..., None] = _write_gif if suffix == ".gif" else _write_film
        write(frames, unfinished, fps, claim)
        if claim is not None and suffix != ".webm":
            unfinished.write_bytes(mark(unfinished.read_bytes(), claim))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. It replaces `path` at the end, or is removed if the block raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _write_film(frames: Iterable["Array"], path: Path, fps: int, claim: Claim | None) -> None:
    av: Any = import_module("av")
    convert = import_module("av.video.reformatter").VideoReformatter().reformat
    layout = {"format": "yuv420p", "dst_colorspace": "ITU709", "dst_color_range": "MPEG"}  # all browsers play it
    codec = CODECS[path.suffix.lower()]
    with av.open(str(path), "w", options=codec.container) as film:
        if claim is not None:
            film.metadata["comment"] = claim.summary()
            if path.suffix.lower() == ".webm":
                film.metadata[WEBM_TAG] = claim_packet(claim).decode()
        stream = film.add_stream(codec.name, rate=fps, options=codec.options)
        stream.pix_fmt = layout["format"]
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(_even(pixels), "rgb24")
            if not context.is_open:
                stream.width, stream.height = frame.width, frame.height
            film.mux(stream.encode(convert(frame, **layout)))
        film.mux(stream.encode())


def _even(pixels: "Array") -> "Array":  # [H, W, 3]
    """Repeat the last row or column where the size is odd: yuv420p has one colour for 2 x 2 pixels."""
    import numpy as np

    height, width = pixels.shape[:2]
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _write_gif(frames: Iterable["Array"], path: Path, fps: int, claim: Claim | None) -> None:
    """Write a GIF that repeats for ever. All frames share 256 colours, so that nothing flickers."""
    pictures = [Image.fromarray(frame) for frame in frames]
    palette = _palette(pictures)
    quantised = (picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for picture in pictures)
    # Times are in hundredths of a second; rounding the ends, not the lengths, keeps the whole as long as asked.
    ends = [round(100 * i / fps) for i in range(len(pictures) + 1)]
    lengths = [10 * (b - a) for a, b in zip(ends, ends[1:], strict=False)]
    first = next(quantised)
    first.save(path, save_all=True, append_images=chain(quantised), duration=lengths, loop=0, disposal=1)


def _palette(pictures: list[Image.Image]) -> Image.Image:
    """Choose 256 colours for samples of 64 x 64 pixels of up to 16 pictures, spread evenly."""
    chosen = pictures[:: -(-len(pictures) // 16)]
    strip = Image.new("RGB", (64 * len(chosen), 64))
    for i, picture in enumerate(chosen):
        strip.paste(picture.resize((64, 64), Image.Resampling.NEAREST), (64 * i, 0))
    return strip.quantize(256, Image.Quantize.MEDIANCUT, kmeans=1)
