"""Tests of the network that corrects splats: its limits, its folder, and the models it is used for."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from balls import balls

from dreamportrait.core.errors import WeightsError
from dreamportrait.export import splat_head
from dreamportrait.export.splat_head import OUTPUTS, SplatHead, gaussians, load_splat_head
from dreamportrait.export.splat_head import save_splat_head as save_head
from dreamportrait.export.splat_points import FEATURES, surface_points
from dreamportrait.export.splats import make_splats
from dreamportrait.geometry.splat_raster import rotation_matrices
from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline
from dreamportrait.weights import single
from dreamportrait.weights.hashing import weights_hash
from dreamportrait.weights.registry import locate
from dreamportrait.weights.seals import seal


def test_an_untrained_network_is_the_rule() -> None:
    points = surface_points(balls(), 1000)
    for a, b in zip(gaussians(points, SplatHead()), gaussians(points, None), strict=True):
        assert torch.equal(a, b)
    made = gaussians(points, None)
    assert (rotation_matrices(made.rotations) - points.frames).abs().max() < 1e-5
    assert torch.equal(made.positions, points.positions) and (made.scales[:, 2] < made.scales[:, 0]).all()


def test_corrections_are_limited() -> None:
    points, head = surface_points(balls(), 1000), SplatHead()
    torch.nn.init.normal_(head.last.bias, std=1e6)
    made, rule = gaussians(points, head), gaussians(points, None)
    moved = (made.positions - rule.positions).norm(dim=1) / points.spacing
    assert moved.max() < 3.5  # at most OFFSET = 2 along each of three axes
    assert (made.rotations.norm(dim=1) - 1).abs().max() < 1e-5
    assert all(part.isfinite().all() for part in made) and 0 <= made.opacities.min() <= made.opacities.max() <= 1


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Return the log, with nothing said before."""
    splat_head._warn_once.cache_clear()
    return caplog


@pytest.fixture
def network() -> SplatHead:
    made = SplatHead()
    torch.nn.init.normal_(made.last.bias)
    return made


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder that takes the place of the shipped one."""
    monkeypatch.setattr(splat_head, "locate", lambda name: tmp_path)
    splat_head._shipped.cache_clear()
    yield tmp_path
    splat_head._shipped.cache_clear()


def test_the_shipped_network_corrects_what_it_was_trained_for(
    shipped: Path, network: SplatHead, said: pytest.LogCaptureFixture
) -> None:
    head, features = balls(), torch.randn(10, FEATURES)
    save_head(network, shipped, head.generator)
    assert (load_splat_head(shipped)(features) - network(features)).abs().max() < 2e-3  # matrices: half precision
    found = splat_head.find_splat_head(head.generator)
    assert found is not None and found(features).shape == (10, OUTPUTS)
    corrected, rule = make_splats(head, 1000), make_splats(head, 1000, corrections=False)
    assert (corrected.scales != rule.scales).any() and not said.records


def test_a_model_of_another_shape_gets_the_rule_and_is_told(
    shipped: Path, network: SplatHead, said: pytest.LogCaptureFixture
) -> None:
    head = balls()
    save_head(network, shipped, head.generator)
    head.generator.config = replace(head.generator.config, box_warp=0.9)
    made, rule = make_splats(head, 1000), make_splats(head, 1000, corrections=False)
    assert (made.scales == rule.scales).all()
    make_splats(head, 1000)
    assert len(said.records) == 1 and "no network corrects the splats of this model" in said.text
    assert "python -m dreamportrait.mini.splats --model" in said.text and "--corrections FOLDER" in said.text


def test_a_network_of_another_model_is_used_and_named(
    shipped: Path, network: SplatHead, said: pytest.LogCaptureFixture
) -> None:
    head = balls()
    save_head(network, shipped, head.generator)
    with torch.no_grad():
        head.generator.decoder.net[0].bias += 1e-3
    corrected, rule = make_splats(head, 1000), make_splats(head, 1000, corrections=False)
    assert (corrected.scales != rule.scales).any()
    make_splats(head, 1000, corrections=load_splat_head(shipped))
    assert len(said.records) == 1 and "was trained for the model" in said.text and "--corrections FOLDER" in said.text


def test_a_damaged_network_is_refused(tmp_path: Path, network: SplatHead) -> None:
    save_head(network, tmp_path, balls().generator)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(WeightsError, match="changed: 'model.safetensors'.*or train the network anew"):
        load_splat_head(tmp_path)
    with pytest.raises(WeightsError, match=r"files.json is not there"):
        load_splat_head(tmp_path / "nothing")
    single.write(tmp_path / "other", {"weight": torch.zeros(2, 2)}, {})
    seal(tmp_path / "other")
    with pytest.raises(WeightsError, match="holds no network that corrects splats; name a folder that"):
        load_splat_head(tmp_path / "other")


def test_the_shipped_network_was_trained_for_the_shipped_model() -> None:
    """If this fails, `mini` is new: run `make mini-splats`."""
    pipe = DreamPortraitPipeline.from_pretrained("mini")
    assert load_splat_head(locate("mini/splats")).made_for == weights_hash(pipe.generator.generator)
