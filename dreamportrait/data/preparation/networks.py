"""The files of two small networks: a face detector and the 468-point landmark network of MediaPipe.

Both lie in the wheel of mediapipe 0.10.21 (Apache-2.0), whose newer versions ship no networks. The wheel is downloaded
once through pip and never installed: only two files are read from it, and their hashes are checked.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from dreamportrait.core.errors import WeightsError
from dreamportrait.core.files import cache_folder, replacing

REQUIREMENT = "mediapipe==0.10.21"
LARGEST = 16 * 2**20  # bytes of a network; both are much smaller


class NetworkFile(NamedTuple):
    """A file in the wheel, and its SHA-256."""

    name: str
    sha256: str


DETECTOR = NetworkFile(
    "mediapipe/modules/face_detection/face_detection_short_range.tflite",
    "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
)
LANDMARKS = NetworkFile(
    "mediapipe/modules/face_landmark/face_landmark.tflite",
    "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
)
# Every platform's wheel holds the same two files, so the wheel of one platform serves all.
PLATFORM = ("--platform", "manylinux_2_28_x86_64", "--python-version", "3.11", "--implementation", "cp")


def read_networks(wheel: Path | None = None, offline: bool = False) -> tuple[bytes, bytes]:
    """Return the contents of DETECTOR and LANDMARKS: from a wheel that is given, the cache, or a download."""
    if wheel is not None:
        return _read_wheel(wheel)
    folder = cache_folder() / "face-networks"
    paths = [folder / Path(file.name).name for file in (DETECTOR, LANDMARKS)]
    if not all(path.is_file() for path in paths):
        if offline:
            raise WeightsError(
                f"the face networks are not in {folder}; leave --offline out once, or name the wheel of {REQUIREMENT} "
                "(--networks FILE)"
            )
        for path, content in zip(paths, _download(), strict=True):
            with replacing(path) as unfinished:
                unfinished.write_bytes(content)
    detector, landmarks = (path.read_bytes() for path in paths)
    return _checked(DETECTOR, detector, paths[0]), _checked(LANDMARKS, landmarks, paths[1])


def _download() -> tuple[bytes, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        result = subprocess.run(
            [*command, *PLATFORM, "--dest", folder, REQUIREMENT], capture_output=True, text=True, errors="replace"
        )
        wheels = list(Path(folder).glob("*.whl"))
        if result.returncode or len(wheels) != 1:
            said = result.stderr.strip().splitlines()[-1:] or ["no reason given"]
            raise WeightsError(
                f"pip could not download {REQUIREMENT}: {said[0]}. Download that wheel elsewhere and name it "
                "(--networks FILE), or use landmarks of another detector (--landmarks FILE)"
            )
        return _read_wheel(wheels[0])


def _read_wheel(wheel: Path) -> tuple[bytes, bytes]:
    def read(file: NetworkFile) -> bytes:
        try:
            with zipfile.ZipFile(wheel) as archive:
                if archive.getinfo(file.name).file_size > LARGEST:
                    raise WeightsError(f"{wheel}: {file.name} is too large for the network that is expected")
                content = archive.read(file.name)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise WeightsError(f"{wheel} is not the wheel of {REQUIREMENT}: {error}") from None
        return _checked(file, content, wheel)

    return read(DETECTOR), read(LANDMARKS)


def _checked(file: NetworkFile, content: bytes, where: Path) -> bytes:
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise WeightsError(
            f"{where}: {Path(file.name).name} has SHA-256 {found}, expected {file.sha256}; remove it and download "
            f"{REQUIREMENT} again"
        )
    return content
