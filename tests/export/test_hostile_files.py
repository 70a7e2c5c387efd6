"""Tests of files from anywhere that are damaged, endless or made to deceive the reader of statements about origin."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from marked_files import CLAIM, every_format, glb, page, read, saved

from dreamportrait.export import extraction
from dreamportrait.export.embedding import GIF_TRAILER, MP4_UUID, embed
from dreamportrait.export.provenance import (
    verify,
)
from dreamportrait.export.xmp import ProvenanceError


def test_cut_files_are_damaged_or_say_nothing(tmp_path: Path) -> None:
    for kind, data in every_format(tmp_path).items():
        refused = 0
        for length in {*range(0, len(data), max(1, len(data) // 100)), len(data) - 1}:
            try:
                assert read(data[:length], tmp_path) in (None, CLAIM), kind
            except ProvenanceError:
                refused += 1
        assert refused > 2, kind


def test_changed_bytes_never_crash(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for data in every_format(tmp_path).values():
        for _ in range(150):
            changed = bytearray(data)
            for place in random.integers(0, len(data), 3):
                changed[place] = random.integers(256)
            try:
                read(bytes(changed), tmp_path)
            except ProvenanceError:
                continue


HEADS = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"RIFF\xff\xff\0\0WEBP",
    b"GIF89a",
    b"\0\0\0\x10ftyp",
    b"\x1a\x45\xdf\xa3",
    b"<!doctype html>" + extraction.HTML_HEAD,
)


@given(st.sampled_from((*HEADS, b"glTF", b"")), st.binary(max_size=300))
def test_any_bytes(head: bytes, rest: bytes) -> None:
    try:
        found = extraction.find_statements(io.BytesIO(head + rest))
    except ProvenanceError:
        return
    assert all(len(each.data) <= 300 for each in found)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (HEADS[0] + struct.pack(">I4s", 2**31, b"iTXt") + b"XML:com.adobe.xmp\0\0\0\0\0", "at most 1048576 are read"),
        (HEADS[0] + struct.pack(">I4s", 2**31, b"IDAT"), "longer than the file"),
        (b"\xff\xd8\xff\xe1\0\0", "ends in the middle"),  # a length less than that of the length itself
        (b"\xff\xd8\xff\xe0\0\2ab", "a segment of a JPEG file must start with FF"),
        (HEADS[2] + b"XMP \xff\xff\xff\xff", "at most 1048576 are read"),
        (HEADS[4] + struct.pack(">8xI4s", 8, b"uuid") + MP4_UUID, "ends in the middle"),
        (HEADS[4] + struct.pack(">8xI4sQ", 1, b"uuid", 2**63) + MP4_UUID, "at most 1048576 are read"),
        (HEADS[4] + struct.pack(">8xI4s", 3, b"free"), "longer than the file"),
        (b"GIF89a" + bytes(7) + b"\x21\xff\x0bXMP DataXMP\0", "the end is missing"),
        (b"GIF89a" + bytes(7) + b"!", "ends in the middle"),
        (b"GIF89a" + bytes(7) + b"?", "starts no block"),
        (HEADS[5] + b"\0", "more than 8 bytes"),
        (b"glTF" + struct.pack("<III4s", 2, 20, 2**31, b"JSON"), "at most 1048576 are read"),
        (glb({}, b"BIN\0"), "must be JSON"),
        (b"glTF" + struct.pack("<III4s", 2, 24, 4, b"JSON") + b"{{{{", "is damaged"),
        (glb({"extras": {"provenance": "yes"}}), "must be an object"),
        (page({"provenance": "yes"}), "must be an object"),
        (page(["yes"]), "must be an object"),
        (page(CLAIM.extras()).replace(b'": "', b'": '), "the statement in the page is damaged"),
        (page(CLAIM.extras()).replace(b"</script>", b""), "its statement does not end"),
        (page(CLAIM.extras())[:-100], "the end of the page is missing"),
        (page(CLAIM.extras()) + page({}), "holds two statements"),
    ],
)
def test_wrong_lengths(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(ProvenanceError, match=message):
        read(data, tmp_path)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'<!DOCTYPE a [<!ENTITY b "cc"><!ENTITY c "&b;&b;">]><a>&c;</a>', "declares a document type"),
        (b"<a", "is damaged"),
        (b"<a>&b;</a>", "is damaged"),
        ("<a/>".encode("utf-16"), "is damaged"),
        (b"\xff", "is damaged"),
        (b"", "is damaged"),
    ],
)
def test_wrong_packets(tmp_path: Path, body: bytes, message: str) -> None:
    with pytest.raises(ProvenanceError, match=f"file: its XMP metadata .*{message}|file: its XMP metadata {message}"):
        read(embed(saved("png"), body), tmp_path)


def test_deep_and_long_packets(tmp_path: Path) -> None:
    assert read(embed(saved("png"), b"<a>" * 100_000 + b"</a>" * 100_000), tmp_path) is None
    with pytest.raises(ProvenanceError, match="at most 1048576 are read"):
        read(embed(saved("png"), b" " * 2**20 + b"<a/>"), tmp_path)


def test_too_many_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "MAX_PARTS", 100)
    many = b"\xff\xd8" + b"\xff\xe0\0\2" * 101 + b"\xff\xd9"
    with pytest.raises(ProvenanceError, match="more than 100 parts"):
        read(many, tmp_path)
    for data in (b"GIF89a" + bytes(7) + b"\x21\xfe" + b"\1a" * 101 + b"\0;", b"\xff\xd8" + b"\xff" * 200):
        with pytest.raises(ProvenanceError, match="more than 100 parts"):
            read(data, tmp_path)


def test_a_gif_reader_finds_the_end_of_a_packet() -> None:
    """Readers that do not know XMP skip blocks of the lengths that its bytes state, up to a block of length zero."""
    for start in range(1, 256):  # a byte of the packet before it can lead to any of these
        place = start
        while GIF_TRAILER[place]:
            place += GIF_TRAILER[place] + 1
        assert place == len(GIF_TRAILER) - 1


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProvenanceError, match="none.png is not there"):
        verify(tmp_path / "none.png")
    with pytest.raises(ProvenanceError, match="is a folder; name a file"):
        verify(tmp_path)
    assert read(b"", tmp_path) is None


def test_pages(tmp_path: Path) -> None:
    assert read(page({}), tmp_path) is None and read(b"<html></html>", tmp_path) is None
    assert read(page(CLAIM.extras()), tmp_path) == CLAIM
    far = page(CLAIM.extras()).replace(b"<body>", b"<body>" + b" " * (extraction.MAX_READ - 60))
    for shift in range(0, 60, 7):  # the head of the statement lies across the end of what is read at once
        assert read(far.replace(b"<body>", b"<body>" + b" " * shift), tmp_path) == CLAIM
    long = page(CLAIM.extras()).replace(b"<body>", b"<body>" + b" " * 10)
    assert read(long.replace(b"</p>", b" " * 2 * extraction.MAX_READ + b"</p>"), tmp_path) == CLAIM
