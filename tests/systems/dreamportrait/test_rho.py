"""Tests of the measurement of rho(t) with tiny networks."""

import json

import pytest
import torch
from click.testing import CliRunner
from diffusion_folders import write_own
from scripts import load_script
from toy_run import CONFIG, arguments, write_sources

from dreamportrait.systems.dreamportrait import build
from dreamportrait.systems.dreamportrait.config import load_config

SCRIPT = load_script("eval/rho.py")


@pytest.mark.lengthy
def test_the_command(tmp_path):
    sources = write_sources(tmp_path / "sources")
    write_own(sources / "DIFFUSION")
    build.save_untrained(load_config(CONFIG, arguments(sources, tmp_path)[3::2]), tmp_path / "portrait")
    words = ["--checkpoint", str(tmp_path / "portrait"), "--guidance", str(sources / "DIFFUSION")]
    words += ["--dataset", str(sources / "FACES"), "--steps", "24", "--latents", "16", "--held", "24", "--lr", "3e-3"]
    found = []
    for name in ("one.json", "two.json"):
        result = CliRunner().invoke(SCRIPT.main, [*words, "--out", str(tmp_path / name)])
        assert result.exception is None, result.output
        assert "fake_loss_ratio: 1.000 before the fit" in result.output and result.output.count("\n  ") >= 10
        found.append(json.loads((tmp_path / name).read_text()))
        torch.randn(3)
    assert found[0] == found[1]
    rows = found[0]["rho"]
    assert [row["t"] for row in rows] == [50, 150, 250, 350, 450, 550, 650, 750, 850, 950]
    for row in rows:
        assert row["rho"] == pytest.approx(row["pull"] / row["gap"])
    assert found[0]["before"]["fake_loss_ratio"] == pytest.approx(1)
    assert found[0]["after"]["fake_loss_ratio"] < 0.99
