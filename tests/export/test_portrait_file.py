"""Tests of portraits in files, and of the angles, fields of view and resolutions that views may have."""

import json
import logging
import math
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_pipeline import write_portrait

from dreamportrait.core.errors import WeightsError
from dreamportrait.eg3d import planes as planes_module
from dreamportrait.eg3d.planes import camera_angles, fields_of_view, trained_angles, view_notes
from dreamportrait.export.portrait_file import KEY
from dreamportrait.export.portraits import Portrait
from dreamportrait.geometry.cameras import camera_label, intrinsics_from_fov, official_pose, orbit
from dreamportrait.systems.dreamportrait.generator import in_precision
from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline
from dreamportrait.weights.hashing import weights_hash


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> DreamPortraitPipeline:
    return DreamPortraitPipeline.from_pretrained(write_portrait(tmp_path_factory.mktemp("models") / "portrait"))


@pytest.fixture(scope="module")
def portrait(pipe: DreamPortraitPipeline) -> Portrait:
    return pipe("a woman with red hair", seed=3, num_views=2)


@pytest.fixture
def file(portrait: Portrait, tmp_path: Path) -> Path:
    portrait.save(tmp_path / "head.safetensors")
    return tmp_path / "head.safetensors"


def rewrite(file: Path, label: dict | str | None = None, **tensors: torch.Tensor | None) -> None:
    """Change the metadata or the tensors of a file. None removes a tensor."""
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    if isinstance(label, dict):
        metadata[KEY] = json.dumps(json.loads(metadata[KEY]) | label)
    elif label is not None:
        metadata[KEY] = label
    whole = {name: value for name, value in (load_file(file) | tensors).items() if value is not None}
    save_file(whole, file, metadata)


# Files.


def test_metadata_says_what_it_is(file: Path, pipe: DreamPortraitPipeline) -> None:
    with safe_open(file, "pt") as opened:
        label = json.loads(opened.metadata()[KEY])
    assert (label["format_version"], label["prompt"], label["seed"]) == (1, "a woman with red hair", "3")
    assert label["generator"] == weights_hash(pipe.generator.generator)
    assert [path.name for path in file.parent.iterdir()] == ["head.safetensors"]
    mask = os.umask(0o077)
    os.umask(mask)
    assert file.stat().st_mode & 0o777 == 0o666 & ~mask


def test_the_hash_is_of_the_weights_only(pipe: DreamPortraitPipeline) -> None:
    same = in_precision(pipe.generator, "bfloat16").generator
    assert weights_hash(same) == weights_hash(pipe.generator.generator)


def test_a_mixed_portrait_has_no_seed(pipe: DreamPortraitPipeline, tmp_path: Path) -> None:
    made = pipe.mix(["a man", "a woman"]).blend(1, 1)
    made.save(tmp_path / "mixed.safetensors")
    again = pipe.load_portrait(tmp_path / "mixed.safetensors")
    assert again.seed is None and again.prompt == made.prompt and torch.equal(again.colors, made.colors)


def test_an_existing_file_stays(portrait: Portrait, file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(FileExistsError, match="exists; name another file, or allow overwriting"):
        portrait.save(file)
    assert file.read_bytes() == before
    portrait.save(file, overwrite=True)


def test_wrong_targets(portrait: Portrait, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        portrait.save(tmp_path / "head.png")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder"):
        portrait.save(tmp_path / "folder.safetensors", overwrite=True)


def test_nothing_half_written(portrait: Portrait, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(tensors: dict, path: Path, metadata: dict) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr("dreamportrait.export.portrait_file.save_file", fail)
    with pytest.raises(OSError, match="no space left"):
        portrait.save(tmp_path / "head.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_another_models_portrait(file: Path, tmp_path: Path) -> None:
    other = DreamPortraitPipeline.from_pretrained(write_portrait(tmp_path / "other"))
    with torch.no_grad():
        other.generator.generator.decoder.net[0].bias.add_(1e-3)
    with pytest.raises(WeightsError, match="made by another model.*load it with the pipeline that made it"):
        other.load_portrait(file)


@pytest.mark.parametrize(
    ("label", "tensors", "message"),
    [
        ({"format_version": 2}, {}, "format_version 2 is newer than 1.*install a newer dreamportrait"),
        ({"format_version": "x"}, {}, "format_version 'x' must be 1"),
        ({"prompt": 3}, {}, "metadata.prompt must be text, got 3"),
        ({"seed": "-1"}, {}, "seed '-1' must be digits"),
        ({"more": 1}, {}, "unknown keys"),
        ("{", {}, "its metadata is no JSON"),
        ("[]", {}, "format_version None must be 1"),
        ({}, {"planes": None}, "must hold cameras, planes, ws, got 'cameras', 'ws'"),
        ({}, {"planes": torch.zeros(3, 4, 8, 8)}, r"planes must be torch.float32 \[3, 4, 16, 16\], got .*8, 8"),
        ({}, {"ws": torch.zeros(6, 16, dtype=torch.float64)}, "ws must be torch.float32"),
        ({}, {"ws": torch.full((6, 16), torch.inf)}, "NaN or infinite values in ws"),
        ({}, {"cameras": torch.zeros(2, 25)}, "camera 0 of 2"),
        ({}, {"cameras": torch.zeros(0, 25)}, "at least one row"),
    ],
)
def test_damaged_content(
    pipe: DreamPortraitPipeline, file: Path, label: dict | str, tensors: dict, message: str
) -> None:
    rewrite(file, label, **tensors)
    with pytest.raises(WeightsError, match=message):
        pipe.load_portrait(file)


def test_what_is_no_portrait(pipe: DreamPortraitPipeline, file: Path, tmp_path: Path) -> None:
    data = file.read_bytes()
    for damaged in (b"", b"garbage" * 9, data[: len(data) // 2], data[:-1]):
        file.write_bytes(damaged)
        with pytest.raises(WeightsError, match="is no portrait, or is damaged"):
            pipe.load_portrait(file)
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="but no portrait"):
        pipe.load_portrait(tmp_path / "other.safetensors")
    for path in (tmp_path / "gone.safetensors", tmp_path):
        with pytest.raises(WeightsError, match="is no file"):
            pipe.load_portrait(path)


# Views.


def test_angles_and_field_of_view(portrait: Portrait) -> None:
    config = portrait.head.generator.config
    made = portrait.render(yaw=[-10, 0, 10], pitch=5, fov=12)
    expected = config.around([-10, 0, 10], 5)
    expected[:, 16:] = intrinsics_from_fov(12).flatten()
    assert torch.equal(made.cameras, expected) and torch.equal(made.colors, portrait.render(expected).colors)
    assert torch.equal(portrait.render(yaw=10, resolution=4).colors, portrait.view(10, resolution=4).colors)
    assert torch.equal(portrait.render().cameras, config.around([0.0]))
    torch.testing.assert_close(camera_angles(expected, config.camera_pivot)[:, 0], torch.tensor([-10.0, 0, 10]))
    torch.testing.assert_close(fields_of_view(expected), torch.full((3,), 12.0))


def test_wrong_views(portrait: Portrait) -> None:
    with pytest.raises(ValueError, match="cameras and yaw, fov are given; choose one"):
        portrait.render(portrait.views.cameras, yaw=0, fov=20)
    with pytest.raises(ValueError, match="yaw is an empty list"):
        portrait.render(yaw=[])
    with pytest.raises(TypeError, match="yaw must be a number, got 'left'"):
        portrait.render(yaw="left")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="degrees must lie between 0 and 180"):
        portrait.render(fov=180)
    with pytest.raises(ValueError, match="resolution=4096: must be at most 1024"):
        portrait.view(resolution=4096)
    with pytest.raises(TypeError, match="resolution must be an int"):
        portrait.view(resolution=8.0)  # type: ignore[arg-type]


def test_the_range_of_the_training_cameras(tmp_path: Path) -> None:
    generator = DreamPortraitPipeline.from_pretrained(write_portrait(tmp_path / "portrait")).generator.generator
    assert trained_angles(generator) == planes_module.PHOTOGRAPHS  # these weights do not know their cameras
    turned, raised = torch.rand(2, 20_000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    labels = camera_label(
        official_pose(math.pi / 2 + 0.5 * turned, math.pi / 2 + 0.2 * raised), intrinsics_from_fov(18.8)
    )
    generator.dataset_label_std.copy_(labels.std(0))
    yaw, pitch = trained_angles(generator)
    true_pitch = math.degrees(math.asin(0.2 / (math.pi / 2)))  # the cosine of the polar angle is linear in the pitch
    assert abs(yaw - math.degrees(0.5)) < 1 and abs(pitch - true_pitch) < 0.5  # the sine is not quite linear
    generator.dataset_label_std.fill_(2.0)  # all around
    assert trained_angles(generator) == (180.0, 90.0)


def test_notes_on_views(pipe: DreamPortraitPipeline) -> None:
    generator = pipe.generator.generator

    def notes(yaw: float = 0, pitch: float = 0, fov: float = 18.837, resolution: int | None = None) -> dict[str, str]:
        cameras = orbit([0, yaw], pitch, 2.7, (0, 0, 0))
        cameras[:, 16:] = intrinsics_from_fov(fov).flatten()
        return view_notes(generator, cameras, resolution)

    assert notes() == notes(yaw=-34, pitch=14, fov=22, resolution=8) == {}
    assert "yaw=-60, a view from 60 degrees left: this model was trained on views up to about 30" in notes(-60)["yaw"]
    assert "degrees above" in notes(pitch=40)["pitch"] and "degrees below" in notes(pitch=-40)["pitch"]
    assert list(notes(fov=30)) == ["fov"]
    assert "uses at most 8, and its pictures stay 16 x 16" in notes(resolution=16)["resolution"]


def test_each_kind_of_note_is_logged_once(
    portrait: Portrait, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planes_module, "_said", set())
    with caplog.at_level(logging.WARNING):
        portrait.view(20)
        assert not caplog.records
        for yaw in (60, 70, -80):
            portrait.view(yaw)
        portrait.view(60, pitch=50, resolution=16)
    assert [record.message.partition("=")[0] for record in caplog.records] == ["yaw", "pitch", "resolution"]
