"""Tests of statements about origin: written to every format, read back, and read from files that lie or are damaged."""

import io
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from places import ROOT

from dreamportrait.cli.verify import verify as command
from dreamportrait.export import extraction, provenance
from dreamportrait.export.embedding import GIF_TRAILER, MP4_UUID, embed
from dreamportrait.export.encoding import encode
from dreamportrait.export.provenance import (
    MADE_BY_AI,
    Claim,
    claim_for,
    claim_packet,
    inspect,
    mark,
    sidecar_path,
    verify,
    write_sidecar,
)
from dreamportrait.export.sheets import save_picture
from dreamportrait.export.xmp import ProvenanceError, read_packet, write_packet

CLAIM = Claim(model="mini", model_sha256="0f" * 32)
FRAMES = [np.full((16, 16, 3), value, np.uint8) for value in (10, 200)]
PICTURES = ("png", "jpg", "webp", "gif")


def picture(mode: str = "RGB") -> Image.Image:
    return Image.radial_gradient("L").resize((40, 31)).convert(mode)


def saved(kind: str, mode: str = "RGB", **settings: object) -> bytes:
    """Return a picture's file, as Pillow writes it."""
    buffer = io.BytesIO()
    picture(mode).save(buffer, {"jpg": "JPEG"}.get(kind, kind.upper()), **settings)
    return buffer.getvalue()


def film(kind: str, folder: Path, claim: Claim | None) -> bytes:
    if kind != "gif":
        pytest.importorskip("av")
    encode(FRAMES, folder / f"film.{kind}", 10, claim)
    return (folder / f"film.{kind}").read_bytes()


def glb(asset: object, kind: bytes = b"JSON") -> bytes:
    text = json.dumps({"asset": asset}).encode()
    return struct.pack("<4sIIII4s", b"glTF", 2, 20 + len(text), len(text), 0, b"")[:16] + kind + text


def read(data: bytes, folder: Path) -> Claim | None:
    (folder / "file").write_bytes(data)
    return verify(folder / "file")


# Written and read.


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp"])
def test_pictures(tmp_path: Path, suffix: str) -> None:
    plain, marked = tmp_path / f"plain{suffix}", tmp_path / f"marked{suffix}"
    save_picture(picture(), plain)
    save_picture(picture(), marked, claim=CLAIM)
    assert verify(plain) is None and verify(marked) == CLAIM
    assert inspect(marked).places == ("XMP",) and inspect(marked).signer is None and not inspect(marked).unchecked
    with Image.open(plain) as a, Image.open(marked) as b:
        assert a.size == b.size and np.array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize(
    ("kind", "mode", "settings"),
    [
        ("png", "RGBA", {}),
        ("png", "P", {}),
        ("jpg", "L", {"progressive": True}),
        ("webp", "RGB", {"lossless": True}),
        ("webp", "RGBA", {"lossless": True}),
        ("webp", "RGBA", {}),  # has the extended header already
        ("webp", "RGB", {"icc_profile": b"x"}),
        ("gif", "L", {}),
    ],
)
def test_layouts_of_pictures(tmp_path: Path, kind: str, mode: str, settings: dict) -> None:
    data = saved(kind, mode, **settings)
    marked = mark(data, CLAIM)
    assert read(data, tmp_path) is None and read(marked, tmp_path) == CLAIM
    with Image.open(io.BytesIO(data)) as a, Image.open(io.BytesIO(marked)) as b:
        assert a.mode == b.mode and a.size == b.size
        assert np.array_equal(np.asarray(a.convert("RGBA")), np.asarray(b.convert("RGBA")))


def test_another_reader_finds_the_packets() -> None:
    packet = claim_packet(CLAIM)
    with Image.open(io.BytesIO(mark(saved("png"), CLAIM))) as found:
        assert found.info["XML:com.adobe.xmp"].encode() == packet
    with Image.open(io.BytesIO(mark(saved("webp"), CLAIM))) as found:
        assert found.info["xmp"] == packet
    with Image.open(io.BytesIO(mark(saved("jpg"), CLAIM))) as found:
        assert ("APP1", b"http://ns.adobe.com/xap/1.0/\0" + packet) in found.applist


@pytest.mark.parametrize("kind", ["mp4", "webm", "gif"])
def test_videos(tmp_path: Path, kind: str) -> None:
    assert read(film(kind, tmp_path, None), tmp_path) is None
    assert read(film(kind, tmp_path, CLAIM), tmp_path) == CLAIM


def test_meshes(tmp_path: Path) -> None:
    assert read(glb({"version": "2.0", "extras": CLAIM.extras()}), tmp_path) == CLAIM
    assert inspect(tmp_path / "file").places == ("asset.extras",)
    assert read(glb({"version": "2.0"}), tmp_path) is None
    assert read(glb({"extras": {"other": 1}}), tmp_path) is None
    assert read(glb([]), tmp_path) is None


@pytest.mark.parametrize("name", ["head.ply", "head.spz", "head.splat", "head.obj"])
def test_files_with_another_beside_them(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"ply\n" * 100)
    assert verify(path) is None
    beside = write_sidecar(path, CLAIM)
    assert beside == sidecar_path(path) == tmp_path / f"{name}.provenance.json"
    assert verify(path) == CLAIM and inspect(path).places == (beside.name,)
    path.write_bytes(b"ply\n" * 99)
    with pytest.raises(ProvenanceError, match=r"provenance\.json is about other content: the SHA-256 differs"):
        verify(path)


def test_the_prompt_is_stored_only_on_request(tmp_path: Path) -> None:
    claim = claim_for("/home/jane/models/portrait", "0f" * 32)
    assert claim == Claim(model="portrait", model_sha256="0f" * 32, prompt=None)  # not whose folder it is
    assert b"jane" not in mark(saved("png"), claim)
    asked = claim_for("mini", "0f" * 32, prompt="a man <with> \"glasses\" & 'beard' é\n\r\t😀")
    for kind in PICTURES:
        assert read(mark(saved(kind), asked), tmp_path) == asked


@given(st.text(min_size=1, max_size=60))
def test_any_text_survives(text: str) -> None:
    found = read_packet(write_packet({"xmp:CreatorTool": text}))["xmp:CreatorTool"]
    # XML has no control characters and no halves of surrogate pairs.
    assert len(found) == len(text)
    assert all(a == b or b == "\ufffd" and not a.isprintable() for a, b in zip(text, found, strict=True))


def test_claims_that_are_none() -> None:
    with pytest.raises(ProvenanceError, match="model of a claim must be a text of 1 to 20000 characters, got ''"):
        Claim(model="")
    with pytest.raises(ProvenanceError, match="prompt of a claim") as caught:
        Claim(prompt="x" * 20_001)
    assert len(str(caught.value)) < 300
    with pytest.raises(ValueError, match=r"JPEG file holds at most 65504 bytes.*use PNG"):
        mark(saved("jpg"), Claim(prompt="\N{GRINNING FACE}" * 20_000))
    with pytest.raises(ValueError, match="no known place for XMP"):
        embed(b"ply\n", b"")


# Statements of other programs.


def packet(body: str) -> bytes:
    spaces = 'xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:x="http://ns.adobe.com/xap/1.0/"'
    rdf = f'<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#" {spaces}>{body}</r:RDF>'
    return f'<m:xmpmeta xmlns:m="adobe:ns:meta/">{rdf}</m:xmpmeta>'.encode()


def test_other_programs(tmp_path: Path) -> None:
    """Properties may be attributes, the namespaces may have other prefixes, and there may be other packets."""
    data = embed(saved("png"), packet(f'<r:Description e:DigitalSourceType="{MADE_BY_AI}" x:CreatorTool="Other 3"/>'))
    assert read(data, tmp_path) == Claim("Other 3", None)
    element = f"<e:DigitalSourceType>{MADE_BY_AI}</e:DigitalSourceType>"
    data = embed(saved("png"), packet(f"<r:Description>{element}</r:Description>"))
    assert read(data, tmp_path) == Claim("unknown", None)
    photo = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
    for body in ("", "<r:Description/>", f'<r:Description e:DigitalSourceType="{photo}"/>'):
        assert read(embed(saved("png"), packet(body)), tmp_path) is None
    assert read(embed(mark(saved("png"), CLAIM), packet("")), tmp_path) == CLAIM


# Files that contradict themselves.


def test_two_different_claims(tmp_path: Path) -> None:
    twice = mark(mark(saved("png"), CLAIM), CLAIM)
    assert read(twice, tmp_path) == CLAIM
    with pytest.raises(ProvenanceError, match="contradicts itself: XMP says.*model other.*XMP says.*model mini"):
        read(mark(mark(saved("png"), CLAIM), Claim(model="other")), tmp_path)


def test_a_file_and_the_one_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "head.png"
    save_picture(picture(), path, claim=CLAIM)
    write_sidecar(path, CLAIM)
    assert inspect(path).places == ("XMP", "head.png.provenance.json")
    write_sidecar(path, Claim(model="other"))
    with pytest.raises(ProvenanceError, match="contradicts itself"):
        verify(path)


def test_a_claim_that_says_it_is_a_photograph(tmp_path: Path) -> None:
    data = mark(saved("png"), CLAIM)
    changed = claim_packet(CLAIM).replace(b"trainedAlgorithmicMedia", b"digitalCapture")
    with pytest.raises(ProvenanceError, match=r"names a model, but says that it is '.*digitalCapture', not made by AI"):
        read(embed(saved("png"), changed), tmp_path)
    both = claim_packet(CLAIM).replace(b"</rdf:Description>", b"<xmp:CreatorTool>x</xmp:CreatorTool></rdf:Description>")
    with pytest.raises(ProvenanceError, match="two different values of xmp:CreatorTool"):
        read(embed(saved("png"), both), tmp_path)
    with pytest.raises(ProvenanceError, match="the checksum differs"):
        read(data.replace(b"Model>mini<", b"Model>maxi<"), tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged"),
        ("[" * 100_000, "is damaged"),
        ("[]", "the SHA-256 differs"),
        ('{"sha256": "SHA"}', "provenance must be an object with digital_source_type"),
        ('{"sha256": "SHA", "provenance": {"digital_source_type": "x"}}', "must be an object with digital_source_type"),
        ('{"sha256": "SHA", "provenance": {"digital_source_type": "AI", "generator": 5}}', "generator of a claim must"),
        (" " * 2**20 + "{}", "more than 1048576 bytes"),
    ],
)
def test_wrong_files_beside(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "head.ply"
    path.write_bytes(b"ply\n")
    own = json.loads(write_sidecar(path, CLAIM).read_text())["sha256"]
    sidecar_path(path).write_text(content.replace("SHA", own).replace("AI", MADE_BY_AI))
    with pytest.raises(ProvenanceError, match=message):
        verify(path)


# Hostile files.


def every_format(folder: Path) -> dict[str, bytes]:
    found = {kind: mark(saved(kind), CLAIM) for kind in PICTURES}
    found["glb"] = glb({"extras": CLAIM.extras()})
    for kind in ("mp4", "webm"):
        found[kind] = film(kind, folder, CLAIM)
    return found


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


# The command.


def run(*words: object) -> Result:
    return CliRunner().invoke(command, [*map(str, words)])


def test_exit_codes(tmp_path: Path) -> None:
    path = tmp_path / "head.png"
    save_picture(picture(), path, claim=CLAIM)
    done = run(path)
    assert done.exit_code == 0 and "made by AI" in done.output and "'DreamPortrait'" in done.output
    assert "none: anyone may have written this statement" in done.output
    facts = json.loads(run(path, "--json").output)
    assert facts["claim"] == CLAIM.to_dict() and facts["places"] == ["XMP"] and facts["signer"] is None

    save_picture(picture(), path, overwrite=True)
    assert run(path).exit_code == 1 and "does not mean that no AI was used" in run(path).output
    assert run(path, "--json").exit_code == 1 and json.loads(run(path, "--json").output)["claim"] is None

    path.write_bytes(path.read_bytes()[:-9])
    done = run(path)
    assert done.exit_code == 2 and "is cut off or damaged" in done.output and "Traceback" not in done.output
    assert run(path, "--json").exit_code == 2 and "cut off" in json.loads(run(path, "--json").output)["error"]
    assert run(tmp_path / "none").exit_code == 2


def test_texts_of_a_file_cannot_steer_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "head.png").write_bytes(mark(saved("png"), Claim(model="\x9b2J\u202e\nsignature by you")))
    shown = run(tmp_path / "head.png").output
    assert "\x9b" not in shown and "\u202e" not in shown and "\nsignature by you" not in shown


def test_it_starts_at_once() -> None:
    code = "import sys; from dreamportrait.cli import verify; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "av", "c2pa"} & set(done.stdout.split())


def test_the_properties_are_those_of_the_claim() -> None:
    properties: Callable[[Claim], dict] = lambda claim: read_packet(claim_packet(claim))  # noqa: E731
    assert properties(CLAIM) == {
        "Iptc4xmpExt:DigitalSourceType": MADE_BY_AI,
        "xmp:CreatorTool": f"DreamPortrait {CLAIM.version}",
        "Iptc4xmpExt:AISystemUsed": "DreamPortrait",
        "Iptc4xmpExt:AISystemVersionUsed": CLAIM.version,
        "dreamportrait:Model": "mini",
        "dreamportrait:ModelSHA256": "0f" * 32,
    }
    assert set(provenance._PROPERTIES) == set(vars(CLAIM))
