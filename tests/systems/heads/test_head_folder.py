"""Tests of head models and their folders: a round trip, and every kind of damage refused at once."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_heads import arm

from dreamportrait.core.errors import WeightsError
from dreamportrait.systems.heads.folder import TENSORS, notes_of, read_head_model, save_head_model
from dreamportrait.systems.heads.model import HeadModel


def test_round_trip(tmp_path: Path) -> None:
    model = arm(scale=0.1, offset=(0.0, 1.0, 2.0))
    save_head_model(model, tmp_path / "arm", notes={"made by": "a test"})
    found = read_head_model(tmp_path / "arm")
    for field in fields(HeadModel):
        if not field.init:
            continue
        before, after = getattr(model, field.name), getattr(found, field.name)
        assert after.equal(before) if isinstance(before, torch.Tensor) else after == before, field.name
    assert notes_of(tmp_path / "arm") == {"made by": "a test"}
    assert len(load_file(tmp_path / "arm" / TENSORS)["exprdirs"]) == 1  # only the vertex that moves


def test_half_precision_keeps_eleven_bits(tmp_path: Path) -> None:
    model = arm(shapedirs=torch.rand(6, 3, 2, generator=torch.Generator().manual_seed(0)))
    save_head_model(model, tmp_path / "arm", half=True)
    found = read_head_model(tmp_path / "arm").shapedirs
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, model.shapedirs, rtol=2**-11, atol=2**-25)


def test_existing_folders_stay(tmp_path: Path) -> None:
    save_head_model(arm(), tmp_path / "arm")
    with pytest.raises(WeightsError, match="exists and is not empty"):
        save_head_model(arm(), tmp_path / "arm")
    (tmp_path / "arm" / "notes.txt").write_text("mine")
    with pytest.raises(WeightsError, match="holds other files"):
        save_head_model(arm(), tmp_path / "arm", overwrite=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"faces": torch.tensor([[0, 1, 6], [3, 4, 5]])}, "faces must be from 0 to 5, found 0 to 6"),
        ({"v_template": torch.full((6, 3), torch.nan)}, "v_template holds NaN"),
        ({"weights": torch.full((6, 2), 0.4)}, "sum to 1 within 0.001; they are off by 0.2"),
        ({"parents": (-1, 1)}, r"parents \[-1, 1\] are no tree"),
        ({"parents": (0, 0)}, r"parents \[0, 0\] are no tree"),
        ({"weights": None}, "weights are missing"),
        ({"joint_regressor": None}, "joints are missing"),
        ({"shapedirs": torch.zeros(5, 3, 2)}, r"shapedirs has shape \[5, 3, 2\], must be \[6, 3, 2\]"),
        ({"uv_faces": None}, "uv and uv_faces must be given together"),
        ({"mean_texture": torch.zeros(3, 4, 5)}, r"must be \[3, T, T\], square and RGB"),
        ({"scale": 0.0}, "scale=0.0: must be positive"),
    ],
)
def test_wrong_fields_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        arm(**changes)


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(WeightsError, match=r"shapedirs has shape.*posedirs has shape"):
        arm(shapedirs=torch.zeros(5, 3, 2), posedirs=torch.zeros(6, 3, 8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, c: t.pop("faces"), "lacks faces"),
        (lambda t, c: t.update(extra=torch.zeros(1)), "unknown arrays: 'extra'"),
        (lambda t, c: t.update(exprdirs_index=torch.tensor([9])), "exprdirs_index must name one of the 6 vertices"),
        (lambda t, c: c.update(kind="portrait"), "kind must be 'head-model'"),
        (lambda t, c: c.update(parents=["a"], scale="1"), "parents must be a list of numbers; scale must be a number"),
    ],
)
def test_damaged_folders_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    folder = tmp_path / "arm"
    save_head_model(arm(), folder)
    tensors, config = load_file(folder / TENSORS), json.loads((folder / "config.json").read_text())
    change(tensors, config)
    save_file(tensors, folder / TENSORS)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=message):
        read_head_model(folder)


def test_near_names_are_offered() -> None:
    with pytest.raises(ValueError, match="unknown expression 'grows'; the nearest are grow"):
        arm().expression("grows")
    with pytest.raises(ValueError, match="unknown joint 'knee'; the nearest are"):
        arm().joint("knee")
