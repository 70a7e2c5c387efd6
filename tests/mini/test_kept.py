"""Tests of what the w of real pictures keep."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dreamportrait.core.errors import WeightsError
from dreamportrait.geometry.images import from_bytes
from dreamportrait.mini.kept import measure
from dreamportrait.miniworld.attributes import ATTRIBUTES
from dreamportrait.miniworld.world import load
from dreamportrait.prior.inversion import PictureFeatures
from dreamportrait.systems.dreamportrait.folder import load_portrait
from dreamportrait.systems.dreamportrait.names import locate_portrait
from dreamportrait.text.loading import load_clip

FACES = 20


def test_draws_of_a_run_are_read_beside_the_guesses(tmp_path: Path) -> None:
    """The draws are the network's own guesses for the training faces, so they keep what guesses keep."""
    made = load_portrait(locate_portrait("mini"))
    assert made.inverter is not None
    see = PictureFeatures(load_clip(made.text.clip).model)
    with torch.no_grad():
        x = made.inverter(see(from_bytes(torch.tensor(load("train", FACES).images))))
    text = torch.zeros(FACES, 1, made.generator.conditioning.text_width)
    save_file({"x": x[:, None].contiguous(), "text": text}, tmp_path / "pairs.safetensors")
    found = measure("mini", FACES, tmp_path / "pairs.safetensors")
    assert list(found) == ["real pictures", "generator", "their w", "draws"]
    assert all(set(shares) == set(ATTRIBUTES) for shares in found.values())
    assert min(found["real pictures"].values()) > 0.9
    assert found["draws"]["hat"] >= 0.8  # 98 % of many
    assert found["draws"]["background"] >= 0.8
    save_file({"x": x[:, None].flip(0).contiguous(), "text": text}, tmp_path / "others.safetensors")
    assert measure("mini", FACES, tmp_path / "others.safetensors")["draws"]["background"] < 0.8


def test_pairs_of_other_networks_are_refused(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(4, 1, 7), "text": torch.zeros(4, 1, 5)}, tmp_path / "pairs.safetensors")
    with pytest.raises(WeightsError, match="pairs of 7 numbers of w and 5 of text"):
        measure("mini", FACES, tmp_path / "pairs.safetensors")
