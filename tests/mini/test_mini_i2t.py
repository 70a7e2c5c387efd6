"""Tests of the pretraining stage of the image-to-triplane network, with a tiny generator."""

import json
from pathlib import Path

import pytest
import tiny_freestyle as tiny
import torch
from torch import Tensor

from dreamportrait.eg3d.folder import save_generator
from dreamportrait.mini import i2t
from dreamportrait.mini.i2t import Recorded, Scores, measure, train
from dreamportrait.systems.freestyle.folder import load_network_of, read_model
from dreamportrait.systems.freestyle.generator import PictureTo3D
from dreamportrait.systems.freestyle.network import Prediction
from dreamportrait.systems.freestyle.pretraining import PretrainSettings, draw_ws


class Perfect(torch.nn.Module):
    """A stand-in for H that knows the heads of the fronts it is asked for, in order."""

    def __init__(self, held_out: Recorded) -> None:
        super().__init__()
        self.config, self.pairs = tiny.I2T, held_out.at(torch.arange(len(held_out.w)))

    def forward(self, front: Tensor) -> Prediction:
        return Prediction(self.pairs.planes, self.pairs.w, front)


@torch.no_grad()
def test_recorded_heads_are_those_of_the_generator(tmp_path: Path) -> None:
    generator = tiny.generator()
    first = Recorded.of(generator, 5, 3, tmp_path)
    again = Recorded.of(generator, 5, 3, tmp_path)
    assert torch.equal(first.fronts, again.fronts) and first.fronts.dtype == torch.uint8
    torch.manual_seed(3)
    assert torch.equal(first.w, draw_ws(generator, 5, 1.0)[:, 0])
    pairs = first.at(torch.tensor([4, 1]))
    ws = first.w[[4, 1], None].expand(-1, generator.num_ws, -1)
    assert torch.equal(pairs.planes, generator.synthesize_planes(ws, noise="const"))
    camera = generator.config.around([0.0]).expand(2, -1)
    drawn = generator.render(pairs.planes, camera, w=ws).image.clamp(-1, 1)
    torch.testing.assert_close(pairs.front, drawn, atol=1.01 / 127.5, rtol=0)  # one step of a byte
    assert not torch.equal(Recorded.of(tiny.generator(seed=1), 5, 3, tmp_path).fronts, first.fronts)


def test_scores_of_a_perfect_network(tmp_path: Path) -> None:
    generator = tiny.generator()
    held_out = Recorded.of(generator, 3, 1, tmp_path)
    styled = tiny.styled()
    styled.i2t = Perfect(held_out)  # type: ignore[assignment]
    found = measure(styled, held_out, None)
    assert found.plane_error == 0 and found.depth_error == 0
    assert found.psnr_front == found.psnr_25_degrees == 100  # the limit of psnr()
    worse = measure(PictureTo3D(tiny.i2t(), generator), held_out, None)
    assert worse.plane_error > 0.1 and worse.psnr_front < 60


@pytest.mark.lengthy
def test_the_stage_writes_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(i2t, "SIZES", {"code_size": 8, "code_channels": 8})
    save_generator(tiny.generator(), tmp_path / "eg3d", licence="Apache-2.0")
    settings = PretrainSettings(images=8, batch=2, render_share=0.5, statistics=4)
    train(tmp_path / "eg3d", tmp_path / "out", tmp_path / "work", settings=settings, pairs=3, scored=2)
    about = read_model(tmp_path / "out")
    assert (about.pretrained, about.editor) == ("mini/eg3d", "mini/ip2p") and about.few_shot.yaw == 25
    network = load_network_of(tmp_path / "out")
    assert network(tiny.FRONTS).planes.isfinite().all()
    scores = json.loads((tmp_path / "out/scores.json").read_text())
    assert scores["heads"] == 2 and set(Scores._fields) < set(scores)
