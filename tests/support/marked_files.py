"""Small files of every format that can hold a statement about origin."""

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamportrait.export.encoding import encode
from dreamportrait.export.extraction import HTML_HEAD
from dreamportrait.export.provenance import Claim, mark, verify

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


def page(content: object) -> bytes:
    """Return a page of HTML with this statement."""
    text = HTML_HEAD + json.dumps(content).encode() + b"</script>"
    return b"<!doctype html>\n<html><body>" + text + b"<p>" + b"a head " * 40 + b"</p></body>\n</html>\n"


def packet(body: str) -> bytes:
    spaces = 'xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:x="http://ns.adobe.com/xap/1.0/"'
    rdf = f'<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#" {spaces}>{body}</r:RDF>'
    return f'<m:xmpmeta xmlns:m="adobe:ns:meta/">{rdf}</m:xmpmeta>'.encode()


def every_format(folder: Path) -> dict[str, bytes]:
    found = {kind: mark(saved(kind), CLAIM) for kind in PICTURES}
    found["html"] = page(CLAIM.extras())
    found["glb"] = glb({"extras": CLAIM.extras()})
    for kind in ("mp4", "webm"):
        found[kind] = film(kind, folder, CLAIM)
    return found
