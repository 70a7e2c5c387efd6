"""Tests of statements about origin: written to every format, read back, and read from files that lie or are damaged."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from marked_files import CLAIM, PICTURES, film, glb, packet, picture, read, saved
from PIL import Image

from dreamportrait.export import provenance
from dreamportrait.export.embedding import embed
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
