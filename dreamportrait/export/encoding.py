"""Encodes frames as MP4 (H.264), WEBM (VP9) or GIF. MP4 and WEBM need PyAV, which `dreamportrait[video]` installs."""

from collections.abc import Callable, Iterable
from importlib import import_module, util
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from dreamportrait.core.files import check_target, check_writable, replacing
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
    path = check_target(path, overwrite, VIDEO_SUFFIXES)
    check_writable(path)
    suffix = path.suffix.lower()
    most = FPS_GIF if suffix == ".gif" else FPS[1]
    if not FPS[0] <= fps <= most:
        raise ValueError(f"fps={fps}: must be within {FPS[0]} .. {most} for {suffix}")
    if suffix in CODECS and util.find_spec("av") is None:
        raise ValueError(
            f"{suffix} needs PyAV, which is not installed: pip install 'dreamportrait[video]', or use .gif"
        )
    find_identity()
    return path


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
