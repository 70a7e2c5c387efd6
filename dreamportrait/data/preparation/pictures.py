"""Opens photographs of unknown origin, and says in a few words why one cannot be used.

A photograph is turned as its EXIF data asks, and converted to RGB with 8 bits in the colours of sRGB.
"""

import io

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from dreamportrait.core.errors import shown
from dreamportrait.geometry.pictures import opened

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
MOST_BYTES = 256 * 2**20


class Unusable(Exception):
    """The reason for which a photograph is dropped."""


def open_photo(content: bytes) -> Image.Image:
    """Return an upright RGB picture, or raise Unusable with the reason."""
    if len(content) > MOST_BYTES:
        raise Unusable(f"larger than {MOST_BYTES >> 20} MiB")
    if not content:
        raise Unusable("empty file")
    try:
        with opened(io.BytesIO(content)) as photo:
            if getattr(photo, "n_frames", 1) > 1:
                raise Unusable("several pictures in one file")
            photo.load()
            return _as_rgb(ImageOps.exif_transpose(photo))
    except UnidentifiedImageError:
        raise Unusable("no picture, or of an unknown kind") from None
    except Image.DecompressionBombError as error:
        raise Unusable(f"too many pixels: {error}") from None
    except Unusable:
        raise
    except Exception as error:  # damaged files raise many kinds of errors
        raise Unusable(f"damaged: {shown(str(error), 60)}") from None


def _as_rgb(photo: Image.Image) -> Image.Image:
    if photo.mode == "CMYK":
        raise Unusable("CMYK colours: convert it to sRGB")
    if photo.mode.startswith(("I", "F")):
        raise Unusable(f"more than 8 bits a channel (mode {photo.mode}): convert it to 8 bits")
    if photo.has_transparency_data and np.asarray(photo.convert("RGBA"))[..., 3].min() < 255:
        raise Unusable("transparent: put it on a background")
    profile = photo.info.get("icc_profile")
    rgb = photo.convert("RGB")
    return rgb if profile is None or photo.mode != "RGB" else _in_srgb(rgb, profile)


def _in_srgb(photo: Image.Image, profile: bytes) -> Image.Image:
    try:
        source = ImageCms.getOpenProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return photo
        turned = ImageCms.profileToProfile(photo, source, ImageCms.createProfile("sRGB"))
    except ImageCms.PyCMSError as error:
        raise Unusable(f"its colour profile cannot be used: {shown(str(error), 60)}") from None
    assert turned is not None  # only in-place conversion returns None
    return turned


def fingerprint(picture: Image.Image) -> str:
    """Return 128 bits that small changes of a picture keep: where brightness rises along rows and columns.

    Equal fingerprints mean the same picture, perhaps of another size or quality. Plain pictures give only zeros.
    """
    values = np.asarray(picture.convert("L").resize((9, 9), Image.Resampling.BOX), np.int16)
    rises = np.concatenate([(values[:8, 1:] > values[:8, :-1]).ravel(), (values[1:, :8] > values[:-1, :8]).ravel()])
    return np.packbits(rises).tobytes().hex()
