"""Tests of heads that are read back from their GLBs, and of films."""

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_heads import arm

from dreamportrait.core.errors import WeightsError
from dreamportrait.export.provenance import verify
from dreamportrait.mini.models import from_pretrained
from dreamportrait.systems.heads.animation import Track
from dreamportrait.systems.heads.film import at_frame, left_out, save_film
from dreamportrait.systems.heads.folder import save_head_model
from dreamportrait.systems.heads.head import Head
from dreamportrait.systems.heads.saved import load_head


def miniature() -> Head:
    model = from_pretrained("mini/head")
    generator = torch.Generator().manual_seed(0)
    texture = torch.rand(3, 64, 64, generator=generator)
    return Head(model, torch.randn(model.num_shapes, generator=generator), texture, seed=5)


@pytest.mark.parametrize("only_used", [False, True])
def test_round_trip(tmp_path: Path, only_used: bool) -> None:
    head = miniature().posed(jawOpen=0.5, mouthSmileLeft=1.0, neck=(10, -40, 5))
    head.save_glb(tmp_path / "a.glb", only_used=only_used, provenance=False)
    found = load_head(tmp_path / "a.glb")
    torch.testing.assert_close(found.vertices, head.vertices, atol=1e-5, rtol=0)  # six digits are stored
    torch.testing.assert_close(found.texture, head.texture, atol=0.5 / 255 + 1e-6, rtol=0)
    assert found.seed == 5
    assert found.prompt == ""  # left out together with the statement about the origin
    assert verify(tmp_path / "a.glb") is None  # weights are no statement about the origin


def test_a_file_says_what_it_was_made_of(tmp_path: Path) -> None:
    head = replace(miniature(), prompt="a man with red hair")
    head.save_glb(tmp_path / "a.glb")
    assert load_head(tmp_path / "a.glb").prompt == "a man with red hair"
    content = (tmp_path / "a.glb").read_bytes()
    asset = json.loads(content[20 : 20 + struct.unpack_from("<I", content, 12)[0]])["asset"]
    made = asset["extras"]["head"]
    assert (made["model"], made["licence"], made["seed"]) == ("mini/head", head.model.licence, 5)
    assert asset["copyright"] == head.model.licence


def test_heads_of_folders(tmp_path: Path) -> None:
    model = arm(name="mine")
    save_head_model(model, tmp_path / "mine")
    assert load_head(tmp_path / "mine").vertices.equal(model.v_template)
    assert model.mean_texture is not None
    Head(model, torch.tensor([0.5, 1.0]), model.mean_texture).save_glb(tmp_path / "a.glb")
    with pytest.raises(WeightsError, match="was made with head model 'mine'; name its folder with --head"):
        load_head(tmp_path / "a.glb")
    assert load_head(tmp_path / "a.glb", tmp_path / "mine").beta.tolist() == [0.5, 1.0]
    with pytest.raises(WeightsError, match="was made with head model 'mine' and 2 weights"):
        load_head(tmp_path / "a.glb", "mini/head")


def changed(content: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    size = struct.unpack_from("<I", content, 12)[0]
    document = json.loads(content[20 : 20 + size])
    change(document)
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    return content[:12] + struct.pack("<I", len(text)) + content[16:20] + text + content[20 + size :]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["asset"].pop("extras"), "is no head of `dreamportrait head`"),
        (lambda d: d["asset"]["extras"]["head"].update(beta=["x"]), "is no head of `dreamportrait head`"),
        (lambda d: d["asset"]["extras"]["head"].update(beta=[0.0]), "and 1 weights; 'mini/head' has 11"),
        (lambda d: d["asset"]["extras"]["head"].update(model="../x"), "was made with head model '../x'"),
        (lambda d: d.pop("images"), "is damaged"),
        (lambda d: d["bufferViews"][d["images"][0]["bufferView"]].update(byteOffset=0), "is damaged"),
        (lambda d: d["meshes"][0]["extras"]["targetNames"].pop(), "is damaged"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    path = tmp_path / "a.glb"
    miniature().save_glb(path)
    path.write_bytes(changed(path.read_bytes(), change))
    with pytest.raises(WeightsError, match=message):
        load_head(path)


@pytest.mark.parametrize("content", [b"", b"glTF", b"x" * 100])
def test_what_is_no_glb_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.glb").write_bytes(content)
    with pytest.raises(WeightsError, match="is no GLB, or is damaged"):
        load_head(tmp_path / "a.glb")
    with pytest.raises(WeightsError, match="is not there"):
        load_head(tmp_path / "b.glb")


def test_films(tmp_path: Path) -> None:
    head = miniature()
    track = Track(
        np.array([0.0, 0.25]), {"jawOpen": np.array([0.0, 1])}, {"neck": np.array([[0.0, 0, 0], [0, 0.3, 0]])}
    )
    assert save_film(head, tmp_path / "a.gif", track, fps=8, size=32) == 3
    assert (tmp_path / "a.gif").read_bytes()[:3] == b"GIF"
    middle = at_frame(head.posed(cheekPuff=0.5), track.frames(8), 1)
    expected = head.posed(cheekPuff=0.5, jawOpen=0.5, neck=(0, np.degrees(0.15), 0))
    torch.testing.assert_close(middle.vertices, expected.vertices)
    with pytest.raises(FileExistsError):
        save_film(head, tmp_path / "a.gif", track, fps=8)


def test_what_a_file_lacks_is_measured_over_a_track() -> None:
    """The elbow turns by pi: R - I has -2 in its first entry, which moves a vertex by 0.1 of it."""
    posedirs = torch.zeros(6, 3, 9)
    posedirs[5, 2, 0] = 0.1
    model = arm(posedirs=posedirs)
    assert model.mean_texture is not None
    head = Head(model, torch.zeros(2), model.mean_texture)
    track = Track(np.array([0.0, 1.0]), {}, {"elbow": np.array([[0, 0, 0], [0, 0, np.pi]])})
    assert left_out(head) == 0
    assert left_out(head, track) == pytest.approx(0.2 / model.height, rel=1e-5)
    assert left_out(Head(arm(posedirs=None), torch.zeros(2), model.mean_texture), track) == 0
