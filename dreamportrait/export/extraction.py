"""Finds statements about origin in files of unknown origin: XMP packets, JSON in a GLB or a page, and C2PA.

Each format is walked from part to part by the lengths that it states. Nothing is decoded, only parts of interest are
read, and the number of parts and the size of what is read are limited.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from dreamportrait.export.embedding import (
    GIF,
    GIF_HEAD,
    GIF_TRAILER,
    GLB,
    JPEG,
    JPEG_HEAD,
    MP4_UUID,
    PNG,
    PNG_KEYWORD,
    is_mp4,
    is_webp,
)
from dreamportrait.export.xmp import ProvenanceError

MAX_READ = 2**20  # bytes of a packet, or of the JSON in a GLB
MAX_PARTS = 1_000_000  # a GIF of 200 megabytes has fewer
WEBM_TAG = "XMP"
HTML_HEAD = b'<script type="application/json" id="provenance">'  # before the statement in a page of ours
_HTML = (b"<!doctype html", b"<html")
_WEBM = b"\x1a\x45\xdf\xa3"
_C2PA_UUID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
# Elements of WEBM. Those that contain others of interest are entered, all others are skipped.
_SEGMENT, _TAGS, _TAG, _SIMPLE_TAG, _TAG_NAME, _TAG_STRING = 0x18538067, 0x1254C367, 0x7373, 0x67C8, 0x45A3, 0x4487


class Statement(NamedTuple):
    kind: str  # "xmp", "json" (of a GLB), "page" (JSON in HTML) or "c2pa"
    data: bytes  # empty for "c2pa"


def find_statements(file: BinaryIO) -> list[Statement]:
    """Return all statements in an open file. Files of other formats have none."""
    source = _Source(file)
    head = file.read(14)
    file.seek(0)
    walkers = (
        (head.startswith(PNG), _in_png),
        (head.startswith(JPEG), _in_jpeg),
        (is_webp(head), _in_webp),
        (head.startswith(GIF), _in_gif),
        (is_mp4(head), _in_mp4),
        (head.startswith(_WEBM), _in_webm),
        (head.startswith(GLB), _in_glb),
        (head.lower().startswith(_HTML), _in_html),
    )
    for fits, walk in walkers:
        if fits:
            return [*walk(source)]
    return []


class _Source:
    """A file that is read forwards, with limits."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.parts = file, 0
        self.end = file.seek(0, 2)
        file.seek(0)

    @property
    def position(self) -> int:
        return self.file.tell()

    def read(self, size: int) -> bytes:
        if size > MAX_READ:
            raise ProvenanceError(f"it holds metadata of {size} bytes; at most {MAX_READ} are read")
        data = self.file.read(size) if size >= 0 else b""
        if len(data) != size:
            raise ProvenanceError("it is cut off or damaged: it ends in the middle of a part")
        return data

    def go(self, position: int) -> None:
        """Continue at a later position, the end of a part."""
        self.parts += 1
        if self.parts > MAX_PARTS:
            raise ProvenanceError(f"it has more than {MAX_PARTS} parts")
        if not self.position <= position <= self.end:
            raise ProvenanceError("it is cut off or damaged: a part is longer than the file")
        self.file.seek(position)


def _in_png(source: _Source) -> Iterator[Statement]:
    source.read(len(PNG))
    kind = b""
    while kind != b"IEND":
        size, kind = struct.unpack(">I4s", source.read(8))
        end = source.position + size
        if kind == b"iTXt" and size >= len(PNG_KEYWORD) and source.read(len(PNG_KEYWORD)) == PNG_KEYWORD:
            packet = source.read(end - source.position)
            if source.read(4) != struct.pack(">I", zlib.crc32(kind + PNG_KEYWORD + packet)):
                raise ProvenanceError("its XMP metadata is damaged: the checksum differs")
            yield Statement("xmp", packet)
        elif kind == b"caBX":
            yield Statement("c2pa", b"")
        source.go(end + 4)


def _in_jpeg(source: _Source) -> Iterator[Statement]:
    """Walk the segments before the picture."""
    source.read(2)
    while True:
        start, marker = source.read(2)
        if start != 0xFF:
            raise ProvenanceError("it is damaged: a segment of a JPEG file must start with FF")
        while marker == 0xFF:  # padding
            source.go(source.position)
            marker = source.read(1)[0]
        if marker in (0xDA, 0xD9):  # the picture, or the end
            return
        end = source.position + struct.unpack(">H", source.read(2))[0]
        if marker == 0xE1 and source.read(min(len(JPEG_HEAD), end - source.position)) == JPEG_HEAD:
            yield Statement("xmp", source.read(end - source.position))
        elif marker == 0xEB and source.read(min(2, end - source.position)) == b"JP":
            yield Statement("c2pa", b"")
        source.go(end)


def _in_webp(source: _Source) -> Iterator[Statement]:
    end = struct.unpack("<4xI4x", source.read(12))[0] + 8
    while source.position < end:
        kind, size = struct.unpack("<4sI", source.read(8))
        after = source.position + size + size % 2
        if kind == b"XMP ":
            yield Statement("xmp", source.read(size))
        elif kind == b"C2PA":
            yield Statement("c2pa", b"")
        source.go(after)


def _in_mp4(source: _Source) -> Iterator[Statement]:
    while source.position < source.end:
        start = source.position
        size, kind = struct.unpack(">I4s", source.read(8))
        if size == 1:
            size = struct.unpack(">Q", source.read(8))[0]
        end = start + size if size else source.end  # 0: up to the end of the file
        if kind == b"uuid":
            owner = source.read(16)
            if owner == MP4_UUID:
                yield Statement("xmp", source.read(end - source.position))
            elif owner == _C2PA_UUID:
                yield Statement("c2pa", b"")
        source.go(end)


def _in_gif(source: _Source) -> Iterator[Statement]:
    flags = source.read(13)[10]
    _skip_colours(source, flags)
    while (introducer := source.read(1)) != b"\x3b":
        if introducer == b"\x2c":  # a picture
            _skip_colours(source, source.read(9)[8])
            source.read(1)
            _skip_blocks(source)
        elif introducer == b"\x21":
            yield from _in_gif_extension(source)
        else:
            raise ProvenanceError(f"it is damaged: {introducer!r} starts no block of a GIF file")


def _in_gif_extension(source: _Source) -> Iterator[Statement]:
    label, size = source.read(2)
    name = source.read(size)
    start = source.position
    if size:
        _skip_blocks(source)
    if label == 0xFF and name == GIF_HEAD:
        length = source.position - start
        source.file.seek(start)
        raw = source.read(length)
        if not raw.endswith(GIF_TRAILER):
            raise ProvenanceError("its XMP metadata is damaged: the end is missing")
        yield Statement("xmp", raw[: -len(GIF_TRAILER)])
    elif label == 0xFF and name.startswith(b"C2PA_GIF"):
        yield Statement("c2pa", b"")


def _skip_colours(source: _Source, flags: int) -> None:
    source.go(source.position + (3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0))


def _skip_blocks(source: _Source) -> None:
    while size := source.read(1)[0]:
        source.go(source.position + size)


def _in_webm(source: _Source) -> Iterator[Statement]:
    name = b""
    while source.position < source.end:
        element = _number(source, keep_length=True)
        size = _number(source, keep_length=False)
        if element in (_SEGMENT, _TAGS, _TAG, _SIMPLE_TAG) or size is None:
            source.go(source.position)  # its content comes next
        elif element == _TAG_NAME:
            name = source.read(size)
        elif element == _TAG_STRING and name == WEBM_TAG.encode():
            yield Statement("xmp", source.read(size))
        else:
            source.go(source.position + size)


def _number(source: _Source, keep_length: bool) -> int | None:
    """Read a number of 1 to 8 bytes; zero bits before the first 1 tell how many. None = unknown (all bits are 1)."""
    first = source.read(1)[0]
    if not first:
        raise ProvenanceError("it is damaged: a number in a WEBM file has more than 8 bytes")
    rest = 8 - first.bit_length()
    value = int.from_bytes(bytes([first]) + source.read(rest), "big")
    if keep_length:
        return value
    value &= (1 << 7 * (rest + 1)) - 1
    return None if value == (1 << 7 * (rest + 1)) - 1 else value


def _in_glb(source: _Source) -> Iterator[Statement]:
    length, size, kind = struct.unpack("<8xII4s", source.read(20))
    if kind != b"JSON" or length > source.end:
        raise ProvenanceError("it is cut off or damaged: the first chunk of a GLB file must be JSON")
    yield Statement("json", source.read(size))


def _in_html(source: _Source) -> Iterator[Statement]:
    """Search a page of ours for its statement. Other pages have none."""
    found, kept = None, b""
    while data := source.file.read(MAX_READ):
        window = kept + data
        if (place := window.find(HTML_HEAD)) >= 0:
            if found is not None:
                raise ProvenanceError("it holds two statements about its origin")
            source.file.seek(source.position - len(window) + place + len(HTML_HEAD))
            text = source.file.read(MAX_READ)
            found, end, _ = text.partition(b"</script>")
            if not end:
                raise ProvenanceError(f"it is cut off or damaged: its statement does not end within {MAX_READ} bytes")
            source.file.seek(source.position - len(text) + len(found))
            window = b""
        kept = window[1 - len(HTML_HEAD) :]
    if found is not None:
        source.file.seek(max(source.end - 64, 0))
        if not source.file.read().rstrip().endswith(b"</html>"):
            raise ProvenanceError("it is cut off or damaged: the end of the page is missing")
        yield Statement("page", found)
