"""Puts an XMP packet into the bytes of a PNG, JPEG, WEBP, GIF or MP4 file. Pixels and frames stay as they are.

Each format has its own place for XMP, named in part 3 of the XMP specification. extraction.py reads the same places.
"""

import struct
import zlib

PNG, JPEG, GLB = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"glTF"
GIF = (b"GIF87a", b"GIF89a")
PNG_KEYWORD = b"XML:com.adobe.xmp\0\0\0\0\0"  # uncompressed, without language and translation
JPEG_HEAD = b"http://ns.adobe.com/xap/1.0/\0"
GIF_HEAD = b"XMP DataXMP"
# A GIF reader that skips the packet as if it were a list of blocks lands somewhere in these bytes, wherever it starts
# from, and each of them leads it to the zero at the end.
GIF_TRAILER = b"\x01" + bytes(range(255, -1, -1)) + b"\0"
MP4_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
JPEG_MAX = 65533 - len(JPEG_HEAD)  # bytes of a packet in one segment
_VP8X_XMP, _VP8X_ALPHA = 0x04, 0x10  # flags of a WEBP file in the extended layout


def is_webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def is_mp4(data: bytes) -> bool:
    return data[4:8] == b"ftyp"


def embed(data: bytes, packet: bytes) -> bytes:
    """Return the file `data` with the packet in it. The file must be one that this package wrote, without XMP."""
    if data.startswith(PNG):
        return _into_png(data, packet)
    if data.startswith(JPEG):
        return _into_jpeg(data, packet)
    if is_webp(data):
        return _into_webp(data, packet)
    if data.startswith(GIF):
        return _into_gif(data, packet)
    if is_mp4(data):
        return data + struct.pack(">I4s", 24 + len(packet), b"uuid") + MP4_UUID + packet
    raise ValueError(f"a file that starts with {data[:12]!r} has no known place for XMP")


def _into_png(data: bytes, packet: bytes) -> bytes:
    """Add a chunk of text after the header, which is always the first chunk and has 25 bytes."""
    body = b"iTXt" + PNG_KEYWORD + packet
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    start = len(PNG) + 25
    return data[:start] + chunk + data[start:]


def _into_jpeg(data: bytes, packet: bytes) -> bytes:
    """Add an APP1 segment, after the APP0 segment if there is one: some readers want that first."""
    if len(packet) > JPEG_MAX:
        raise ValueError(f"a JPEG file holds at most {JPEG_MAX} bytes of metadata, got {len(packet)}; use PNG")
    body = JPEG_HEAD + packet
    start = 4 + struct.unpack(">H", data[4:6])[0] if data[3] == 0xE0 else 2
    return data[:start] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[start:]


def _into_webp(data: bytes, packet: bytes) -> bytes:
    """Add a chunk at the end, and the extended header that announces it."""
    chunks = data[12:]
    if chunks[:4] != b"VP8X":
        width, height, alpha = _webp_size(chunks)
        sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        header = bytes([_VP8X_ALPHA if alpha else 0, 0, 0, 0]) + sizes
        chunks = struct.pack("<4sI", b"VP8X", len(header)) + header + chunks
    chunks = chunks[:8] + bytes([chunks[8] | _VP8X_XMP]) + chunks[9:]
    chunks += struct.pack("<4sI", b"XMP ", len(packet)) + packet + b"\0" * (len(packet) % 2)
    return struct.pack("<4sI4s", b"RIFF", 4 + len(chunks), b"WEBP") + chunks


def _webp_size(chunks: bytes) -> tuple[int, int, bool]:  # width, height, whether there is transparency
    if chunks[:4] == b"VP8L":
        bits = int.from_bytes(chunks[9:13], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
    width, height = struct.unpack("<HH", chunks[14:18])
    return width & 0x3FFF, height & 0x3FFF, False


def _into_gif(data: bytes, packet: bytes) -> bytes:
    """Add an application extension before the last byte, which ends the file."""
    block = b"\x21\xff" + bytes([len(GIF_HEAD)]) + GIF_HEAD + packet + GIF_TRAILER
    return GIF[1] + data[6:-1] + block + data[-1:]
