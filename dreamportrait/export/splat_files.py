"""Splats as files: .ply in the layout of 3D Gaussian Splatting, and .spz.

    .ply   float32, 68 bytes a splat; x to the right, y down, z away from the viewer, as the format's cameras see
    .spz   version 3 of Niantic's format, gzip, about 16 bytes a splat; x to the right, y up, z to the viewer

Both hold the same head: programs that convert one into the other turn it by half a turn.
Positions and sizes are metres. Colours have no view dependence: only degree 0 of spherical harmonics.
"""

import gzip
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray as Array
from torch import Tensor

from dreamportrait import __version__
from dreamportrait.core.files import check_target, replacing
from dreamportrait.export.mesh import METRES
from dreamportrait.geometry.splat_raster import VIEWERS_BLUR, SplatPicture, draw_splats, rotation_matrices

SUFFIXES = (".ply", ".spz")
MAX_SPLATS = 10_000_000  # more are taken for a damaged count when files are read
FLIP = np.array([1, -1, -1], np.float32)  # from y up, z to the viewer, to y down, z away; and back
HARMONIC = 0.28209479177387814  # spherical harmonic of degree 0: 1 / (2 sqrt(pi))
FAINTEST, DENSEST = 1e-4, 1 - 1e-4  # opacities, whose logits are stored

_PLY = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
_NEEDED = tuple(name for name in _PLY if not name.startswith("n"))
_HEADER = struct.Struct("<IIIBBBB")  # magic, version, count, degree, fractional bits, flags, reserved
_MAGIC, _VERSION = 0x5053474E, 3
_FRACTION_BITS = 14  # of positions: steps of 0.06 mm, up to 512 m
_EFFORT = 1  # of gzip: 6 takes twice the time and makes files 1 % smaller
_COLOR_SCALE, _SIZE_STEP, _SIZE_OFFSET = 0.15, 16, 10  # of the format


@dataclass(frozen=True, eq=False)
class Splats:
    """N splats in metres: y is up, the face looks along +z, the origin is the middle of the head, as in a Mesh."""

    positions: Array  # [N, 3] float32
    scales: Array  # [N, 3] float32, standard deviations along the axes of the splat
    rotations: Array  # [N, 4] float32, unit quaternions w, x, y, z
    colors: Array  # [N, 3] float32, sRGB in 0 .. 1
    opacities: Array  # [N] float32 in 0 .. 1

    def __post_init__(self) -> None:
        for name, width in (("positions", 3), ("scales", 3), ("rotations", 4), ("colors", 3)):
            if getattr(self, name).shape != (len(self.positions), width):
                raise ValueError(f"{name} must be [{len(self.positions)}, {width}], got {getattr(self, name).shape}")
        if self.opacities.shape != (len(self.positions),):
            raise ValueError(f"opacities must be [{len(self.positions)}], got {self.opacities.shape}")

    def __len__(self) -> int:
        return len(self.positions)

    def __repr__(self) -> str:
        return f"Splats({len(self)})"

    @property
    def covariances(self) -> Array:  # [N, 3, 3], as viser takes them
        axes = rotation_matrices(torch.from_numpy(self.rotations)).numpy() * self.scales[:, None]
        found: Array = axes @ axes.transpose(0, 2, 1)
        return found

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write .ply (3D Gaussian Splatting) or .spz. See splat_files.py for their axes."""
        save_splats(self, path, overwrite)

    @classmethod
    def load(cls, path: str | Path) -> "Splats":
        """Read a .ply or .spz file."""
        return load_splats(path)

    @torch.no_grad()
    def draw(self, cameras: Tensor, resolution: int, blur: float = VIEWERS_BLUR) -> Iterator[SplatPicture]:
        """Draw the splats from cameras [V, 25] of the model, over black; slowly, in plain PyTorch."""
        positions, scales, rotations, colors, opacities = (
            torch.from_numpy(np.ascontiguousarray(part)) for part in vars(self).values()
        )
        placed = positions / METRES, scales / METRES, rotations, colors, opacities
        for camera in cameras.cpu():
            yield draw_splats(*placed, camera, resolution, blur)


def check_splats_target(path: str | Path, overwrite: bool = False) -> Path:
    """Raise an error unless splats may be written to `path`; return the path."""
    return check_target(path, overwrite, SUFFIXES)


def save_splats(splats: Splats, path: str | Path, overwrite: bool = False) -> None:
    """Write splats in the format of the suffix, by way of a temporary file."""
    path = check_splats_target(path, overwrite)
    content = to_ply(splats) if path.suffix.lower() == ".ply" else to_spz(splats)
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)


def load_splats(path: str | Path) -> Splats:
    """Read a .ply or .spz file, also one that another program wrote. View dependence of colours is left out."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: must end in one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; name a file of splats")
    content = path.read_bytes()
    try:
        return from_ply(content) if path.suffix.lower() == ".ply" else from_spz(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


# ----- PLY ------------------------------------------------------------------------------------------------


def to_ply(splats: Splats) -> bytes:
    rows = np.zeros((len(splats), len(_PLY)), "<f4")
    rows[:, :3] = splats.positions * FLIP
    rows[:, 6:9] = (splats.colors - 0.5) / HARMONIC
    rows[:, 9] = _logit(splats.opacities)
    rows[:, 10:13] = np.log(splats.scales)
    rows[:, 13:] = splats.rotations * np.append(1, FLIP)
    lines = ["ply", "format binary_little_endian 1.0"]
    lines += [f"comment DreamPortrait {__version__}; x right, y down, z away from the viewer; metres"]
    lines += [f"element vertex {len(splats)}", *(f"property float {name}" for name in _PLY), "end_header"]
    return "".join(f"{line}\n" for line in lines).encode("ascii") + rows.tobytes()


def from_ply(content: bytes) -> Splats:
    head, found, body = content.partition(b"end_header\n")
    lines = head.decode("ascii", "replace").splitlines()
    if not found or lines[:1] != ["ply"] or "format binary_little_endian 1.0" not in lines:
        raise ValueError("is no binary little-endian PLY file")
    words = [line.split() for line in lines]
    elements = [word[1:] for word in words if word[:1] == ["element"]]
    names = [word[2] for word in words if len(word) == 3 and word[:2] == ["property", "float"]]
    properties = sum(word[:1] == ["property"] for word in words)
    if len(elements) != 1 or elements[0][:1] != ["vertex"] or properties != len(names):
        raise ValueError("must hold vertices with float properties and nothing else, as Gaussian Splatting writes them")
    if missing := [name for name in _NEEDED if name not in names]:
        raise ValueError(f"has no {', '.join(missing)}; a PLY of splats has {', '.join(_NEEDED)}")
    count = _count(elements[0][1])
    if len(body) != 4 * count * len(names):
        raise ValueError(
            f"{count} splats of {len(names)} numbers need {4 * count * len(names)} bytes, {len(body)} follow"
        )
    table = dict(zip(names, np.frombuffer(body, "<f4").reshape(count, len(names)).T, strict=True))

    def columns(*names: str) -> Array:
        return np.stack([table[name] for name in names], 1)

    return _checked(
        Splats(
            columns("x", "y", "z") * FLIP,
            np.exp(columns("scale_0", "scale_1", "scale_2")),
            _unit(columns("rot_0", "rot_1", "rot_2", "rot_3") * np.append(1, FLIP)),
            columns("f_dc_0", "f_dc_1", "f_dc_2") * HARMONIC + 0.5,
            1 / (1 + np.exp(-table["opacity"])),
        )
    )


# ----- SPZ ------------------------------------------------------------------------------------------------


def to_spz(splats: Splats) -> bytes:
    header = _HEADER.pack(_MAGIC, _VERSION, len(splats), 0, _FRACTION_BITS, 0, 0)
    fixed = np.round(splats.positions.astype(np.float64) * 2**_FRACTION_BITS).clip(-(2**23), 2**23 - 1)
    positions = fixed.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3]  # the lower three bytes
    parts = [
        positions,
        _to_byte(255 * splats.opacities),
        _to_byte(255 * ((splats.colors - 0.5) / HARMONIC * _COLOR_SCALE + 0.5)),
        _to_byte((np.log(splats.scales) + _SIZE_OFFSET) * _SIZE_STEP),
        _pack_smallest_three(splats.rotations),
    ]
    return gzip.compress(header + b"".join(np.ascontiguousarray(part).tobytes() for part in parts), _EFFORT, mtime=0)


def from_spz(content: bytes) -> Splats:
    """Read versions 2 and 3, which store rotations in three and in four bytes."""
    if content[:4] == _MAGIC.to_bytes(4, "little"):
        raise ValueError("is an SPZ file of version 4 or later; only versions 2 and 3 are read, so convert it to .ply")
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        head = unpack.decompress(content, _HEADER.size)
        if len(head) < _HEADER.size:
            raise ValueError("is cut off")
        magic, version, count, degree, bits, _, _ = _HEADER.unpack(head)
        if magic != _MAGIC or version not in (2, 3) or degree > 4:
            raise ValueError(f"is no SPZ file of version 2 or 3, or is damaged (version {version}, degree {degree})")
        per_splat = 16 + version + 1 + 3 * ((degree + 1) ** 2 - 1)
        size = _count(str(count)) * per_splat
        data = unpack.decompress(unpack.unconsumed_tail, max(size, 1))
    except zlib.error as error:
        raise ValueError(f"is no SPZ file, or is damaged: {error}") from None
    if len(data) != size:
        raise ValueError(f"is cut off: {count} splats need {size} bytes, {len(data)} follow")
    bytes_of = np.split(np.frombuffer(data, np.uint8), np.cumsum([9 * count, count, 3 * count, 3 * count]))
    positions, opacities, colors, scales, rest = bytes_of
    fixed = np.zeros((count * 3, 4), np.uint8)
    fixed[:, 1:] = positions.reshape(-1, 3)  # in the upper bytes, so that the sign is right
    rotations = rest[: count * (version + 1)].reshape(count, version + 1)
    return _checked(
        Splats(
            ((fixed.view("<i4") >> 8) / 2.0**bits).reshape(count, 3).astype(np.float32),
            np.exp(scales.reshape(count, 3).astype(np.float32) / _SIZE_STEP - _SIZE_OFFSET),
            _first_three(rotations) if version == 2 else _smallest_three(rotations),
            ((colors.reshape(count, 3).astype(np.float32) / 255 - 0.5) / _COLOR_SCALE * HARMONIC + 0.5),
            opacities.astype(np.float32) / 255,
        )
    )


def _first_three(stored: Array) -> Array:  # [N, 3] uint8 -> [N, 4]
    vector = stored.astype(np.float32) / 127.5 - 1
    w = np.sqrt((1 - (vector**2).sum(1)).clip(0))
    return _unit(np.concatenate([w[:, None], vector], 1))


def _pack_smallest_three(rotations: Array) -> Array:  # [N, 4] w, x, y, z -> [N] of four bytes
    """Pack which of x, y, z, w is largest into two bits, and the others into a sign and nine bits each."""
    parts = np.roll(rotations, -1, axis=1)  # x, y, z, w
    largest = np.abs(parts).argmax(1)
    parts = parts * np.where(np.take_along_axis(parts, largest[:, None], 1) < 0, -1, 1)
    packed = largest.astype(np.uint32)
    for component in range(4):
        value = parts[:, component]
        size = np.round(np.abs(value) / np.sqrt(0.5) * 511).clip(0, 511).astype(np.uint32)
        longer = (packed << 10) | (value < 0).astype(np.uint32) << 9 | size
        packed = np.where(component == largest, packed, longer)
    return packed.astype("<u4")


def _smallest_three(stored: Array) -> Array:  # [N, 4] uint8 -> [N, 4]
    """Read what `_pack_smallest_three` writes."""
    packed = np.ascontiguousarray(stored).view("<u4")[:, 0].astype(np.int64)
    largest = packed >> 30
    found = np.zeros((len(packed), 4), np.float32)  # x, y, z, w
    for component in (3, 2, 1, 0):
        other = component != largest
        value = (packed & 511) / 511 * np.sqrt(0.5) * np.where(packed & 512, -1, 1)
        found[other, component] = value[other]
        packed = np.where(other, packed >> 10, packed)
    rest = np.sqrt((1 - (found**2).sum(1)).clip(0))
    found[np.arange(len(found)), largest] = rest
    return _unit(np.roll(found, 1, axis=1))


# ----- Numbers --------------------------------------------------------------------------------------------


def _logit(opacities: Array) -> Array:
    inside = opacities.clip(FAINTEST, DENSEST)
    logits: Array = np.log(inside / (1 - inside))
    return logits


def _to_byte(values: Array) -> Array:
    return np.round(values).clip(0, 255).astype(np.uint8)


def _unit(quaternions: Array) -> Array:
    lengths = np.linalg.norm(quaternions, axis=1, keepdims=True)
    if not (lengths > 0).all():
        raise ValueError("holds a rotation of length 0, or one that is no number; it is damaged")
    return (quaternions / lengths).astype(np.float32)


def _count(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) <= MAX_SPLATS:
        raise ValueError(f"holds {text[:20]} splats; must be 1 to {MAX_SPLATS}")
    return int(text)


def _checked(splats: Splats) -> Splats:
    for name, values in vars(splats).items():
        if not np.isfinite(values).all():
            raise ValueError(f"{name} hold numbers that are not finite; it is damaged")
    return splats
