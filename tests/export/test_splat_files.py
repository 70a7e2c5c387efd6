"""Tests of splats in files: round trips, the bytes of hand-made splats, damaged files, and readers of others."""

import gzip
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from npm_tools import package

from dreamportrait.export.splat_files import SUFFIXES, check_splats_target, from_spz, to_ply, to_spz
from dreamportrait.export.splats import Splats

HALF = 0.5**0.5


def random_splats(count: int = 500) -> Splats:
    rng = np.random.default_rng(0)
    rotations = rng.normal(size=(count, 4))
    rotations /= np.linalg.norm(rotations, axis=1, keepdims=True)
    parts = (
        rng.normal(size=(count, 3)) * 0.1,
        np.exp(rng.normal(size=(count, 3)) * 0.5 - 6),
        rotations,
        rng.random((count, 3)),
        rng.uniform(0.01, 0.99, count),
    )
    return Splats(*(part.astype(np.float32) for part in parts))


def assert_same(a: Splats, b: Splats, rounding: dict[str, float]) -> None:
    for name in ("positions", "colors", "opacities"):
        assert np.abs(getattr(a, name) - getattr(b, name)).max() <= rounding[name], name
    assert np.abs(np.log(a.scales / b.scales)).max() <= rounding["scales"]
    assert np.abs(a.covariances - b.covariances).max() <= rounding["rotations"] * (a.scales**2).max()


# PLY stores float32; logarithms and logits lose the last digits.
EXACT = {"positions": 0.0, "colors": 1e-6, "opacities": 1e-6, "scales": 1e-5, "rotations": 1e-5}
# SPZ: half a step of 2^-14 m; half of 1/255, for colours times 0.282 / 0.15; half of 1/16. Rotations have steps of
# 0.7 / 511 in three components: below half a degree, so below 0.02 of the largest variance, besides the scales' 13 %.
PACKED = {"positions": 2**-15 + 1e-6, "colors": 0.0037, "opacities": 0.002, "scales": 0.03126, "rotations": 0.15}


@pytest.mark.parametrize(("suffix", "rounding"), [(".ply", EXACT), (".spz", PACKED)])
def test_a_file_gives_back_its_splats(tmp_path: Path, suffix: str, rounding: dict[str, float]) -> None:
    path, splats = tmp_path / "new" / f"head{suffix}", random_splats()
    splats.save(path)
    assert_same(splats, Splats.load(path), rounding)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def one() -> Splats:
    """Return one splat at (1, 2, 3) metres, turned by 90 degrees around y."""
    rows = ([[1, 2, 3]], [[0.01, 0.02, 0.03]], [[HALF, 0, HALF, 0]], [[0.5, 1, 0]])
    return Splats(*(np.array(row, np.float32) for row in rows), np.array([0.5], np.float32))


def test_the_numbers_in_a_ply() -> None:
    head, body = to_ply(one()).split(b"end_header\n")
    names = [line.split()[2] for line in head.decode().splitlines() if line.startswith("property float")]
    found = dict(zip(names, struct.unpack(f"<{len(names)}f", body), strict=True))
    harmonic = 0.5 / 0.28209479
    expected = {"x": 1, "y": -2, "z": -3, "nx": 0, "ny": 0, "nz": 0}  # y down, z away from the viewer
    expected |= {"f_dc_0": 0, "f_dc_1": harmonic, "f_dc_2": -harmonic, "opacity": 0}
    expected |= {f"scale_{k}": np.log(0.01 * (k + 1)) for k in range(3)}
    expected |= {"rot_0": HALF, "rot_1": 0, "rot_2": -HALF, "rot_3": 0}
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, abs=1e-6)


def test_the_bytes_of_a_spz() -> None:
    data = gzip.decompress(to_spz(one()))
    assert data[:16] == b"NGSP" + struct.pack("<II", 3, 1) + bytes([0, 14, 0, 0])
    assert data[16:25] == b"".join((k * 2**14).to_bytes(3, "little") for k in (1, 2, 3))
    assert data[25:26] == bytes([128])  # 255 * 0.5, rounded to even
    assert list(data[26:29]) == [128, 195, 60]  # 255 * (0.5 +- 0.5 / 0.282 * 0.15)
    assert list(data[29:32]) == [round((np.log(0.01 * k) + 10) * 16) for k in (1, 2, 3)]
    (packed,) = struct.unpack("<I", data[32:])
    # y, the first of the two largest of x, y, z, w, is left out. Then x, z, w; w is 511 / 511 of sqrt(1/2).
    assert packed == 1 << 30 | 0 << 20 | 0 << 10 | 511


def test_a_spz_of_version_2_is_read() -> None:
    data = bytearray(gzip.decompress(to_spz(one())))
    data[4:8] = struct.pack("<I", 2)
    data[32:] = bytes(round(127.5 + 127.5 * part) for part in (0, HALF, 0))
    # Steps are 1 / 127.5, and w follows from the others.
    assert np.abs(from_spz(gzip.compress(bytes(data))).rotations - one().rotations).max() < 0.01


def test_view_dependence_in_a_ply_is_left_out(tmp_path: Path) -> None:
    head, body = to_ply(one()).split(b"end_header\n")
    path = tmp_path / "head.ply"
    path.write_bytes(head + b"property float f_rest_0\nend_header\n" + body + bytes(4))
    assert_same(one(), Splats.load(path), EXACT)


# Bad input.


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_existing_file_stays(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"head{suffix}"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="allow overwriting"):
        one().save(path)
    assert path.read_text() == "mine"
    one().save(path, overwrite=True)
    assert len(Splats.load(path)) == 1


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [("head.glb", ValueError, r"must end in one of \.ply, \.spz"), ("folder.ply", IsADirectoryError, "name a file")],
)
def test_targets_that_are_refused(tmp_path: Path, name: str, error: type[Exception], message: str) -> None:
    (tmp_path / "folder.ply").mkdir()
    with pytest.raises(error, match=message):
        check_splats_target(tmp_path / name)


def ply(before: bytes, after: bytes) -> bytes:
    data = to_ply(one())
    assert before in data
    return data.replace(before, after)


def spz(*changes: tuple[int, bytes]) -> bytes:
    data = bytearray(gzip.decompress(to_spz(one())))
    for place, values in changes:
        data[place : place + len(values)] = values
    return gzip.compress(bytes(data))


DAMAGED = {
    "empty.ply": (b"", "no binary little-endian PLY"),
    "text.ply": (ply(b"binary_little_endian", b"ascii"), "no binary little-endian PLY"),
    "mesh.ply": (ply(b"end_header", b"element face 1\nend_header"), "vertices with float properties and nothing else"),
    "double.ply": (ply(b"float x", b"double x"), "vertices with float properties and nothing else"),
    "points.ply": (ply(b"opacity", b"quality"), "has no opacity; a PLY of splats has"),
    "cut.ply": (to_ply(one())[:-1], "1 splats of 17 numbers need 68 bytes, 67 follow"),
    "many.ply": (ply(b"vertex 1", b"vertex 99999999999"), "holds 99999999999 splats; must be 1 to 10000000"),
    "nan.ply": (to_ply(one())[:-68] + struct.pack("<f", np.nan) + to_ply(one())[-64:], "positions hold numbers"),
    "still.ply": (to_ply(one())[:-16] + bytes(16), "a rotation of length 0"),
    "empty.spz": (b"", "is cut off"),
    "raw.spz": (b"some text", "is no SPZ file, or is damaged"),
    "other.spz": (gzip.compress(b"some text of more than sixteen bytes"), "is no SPZ file of version 2 or 3"),
    "cut.spz": (gzip.compress(gzip.decompress(to_spz(one()))[:-1]), "1 splats need 20 bytes, 19 follow"),
    "torn.spz": (to_spz(one())[:-20], "need 20 bytes"),
    "many.spz": (spz((8, struct.pack("<I", 2**31))), "holds 2147483648 splats; must be 1 to"),
    "new.spz": (b"NGSP" + struct.pack("<I", 4) + bytes(24), "version 4 or later; only versions 2 and 3"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files(tmp_path: Path, name: str) -> None:
    content, message = DAMAGED[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as raised:
        Splats.load(path)
    assert str(path) in str(raised.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="name a file of splats"):
        Splats.load(tmp_path / "head.spz")


# Readers of others. They come from npm and are not installed by us: see tests/support/npm_tools.py.


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "other", "rounding"), [(".spz", ".ply", PACKED), (".ply", ".ply", EXACT)])
def test_playcanvas_reads_the_same_splats(tmp_path: Path, suffix: str, other: str, rounding: dict[str, float]) -> None:
    """Files are read by the library that Adobe and Niantic publish for .spz, and written as .ply with y down."""
    tool = package("@playcanvas/splat-transform") / "bin" / "cli.mjs"
    splats, source, target = random_splats(), tmp_path / f"head{suffix}", tmp_path / f"again{other}"
    splats.save(source)
    subprocess.run(["node", str(tool), str(source), str(target)], check=True, capture_output=True, timeout=120)
    again = Splats.load(target)
    order = np.lexsort(again.positions.T)  # the tool may sort
    ours = np.lexsort(Splats.load(source).positions.T)
    for name in vars(splats):
        found, expected = getattr(again, name)[order], getattr(Splats.load(source), name)[ours]
        # Two readers of the same bytes differ by the rounding of float32.
        assert np.abs(found - expected).max() < 1e-4 or name == "rotations"
    chosen = [Splats(*(getattr(each, n)[i] for n in vars(splats))) for each, i in ((splats, ours), (again, order))]
    assert_same(*chosen, rounding)
