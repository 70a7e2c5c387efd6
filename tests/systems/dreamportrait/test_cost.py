"""Tests of the bill of a training: sizes against real networks and files, memory as a line, probe, presets, command."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from places import ROOT
from safetensors.torch import load_file
from torch import nn
from toy_run import arguments, write_sources

from dreamportrait.cli import main
from dreamportrait.core.tensor_memory import TensorMemory
from dreamportrait.systems.dreamportrait import build
from dreamportrait.systems.dreamportrait.config import Config, load_config
from dreamportrait.systems.dreamportrait.cost import bill as bills
from dreamportrait.systems.dreamportrait.cost import pace
from dreamportrait.systems.dreamportrait.cost.memory import GIB, Memory, Part
from dreamportrait.systems.dreamportrait.cost.outline import outline, parameters
from dreamportrait.systems.dreamportrait.cost.probe import kinds, probe
from dreamportrait.systems.dreamportrait.cost.shapes import Rehearsal

MINI = ROOT / "configs" / "dreamportrait" / "mini.yaml"


@pytest.fixture(scope="module")
def mini() -> Config:
    return load_config(MINI)


@pytest.fixture(scope="module")
def rehearsal(mini: Config) -> Rehearsal:
    return Rehearsal(mini, outline(mini))


# Memory of tensors.


def test_memory_of_known_tensors() -> None:
    with torch.device("meta"), TensorMemory() as memory:
        a = torch.empty(1000)
        b = a + 1
        view = b[:10]
        assert memory.now == 8000
        del a
        assert memory.now == 4000 and memory.peak == 8000 and len(view) == 10
        del b, view
    assert memory.now == 0


# Sizes.


def test_the_outline_has_the_sizes_of_the_networks(mini: Config) -> None:
    found = outline(mini)
    portrait, critic = build.make_networks(mini, build.text_width(mini))
    assert parameters(found.portrait) == parameters(portrait) and parameters(found.critic) == parameters(critic)
    assert found.assumed == []


def test_the_gaussian_of_texts_is_counted() -> None:
    costs = []
    for stay in (0, 0.5):
        config = load_config(MINI.with_name("mini_speak.yaml"), [f"stages.0.prior.stay={stay}"])
        assert config.prior is not None
        costs.append(bills._small_networks(outline(config), config.prior))
    # 1000 steps of 256 samples: forward and backward through 300 000 weights.
    assert 1000 * 256 * 6 * 2.5e5 < costs[1] - costs[0] < 1000 * 256 * 6 * 3.5e5


def test_what_is_missing_is_assumed_and_said() -> None:
    found = outline(load_config(ROOT / "configs/dreamportrait/celebatext_hq.yaml"))
    assert parameters(found.portrait.generator) == 30_662_136 and parameters(found.unet) == 865_910_724
    assert len(found.assumed) == 2 and "weights/ffhq512 is not here" in found.assumed[0]


@pytest.mark.lengthy
def test_the_sizes_of_files(tmp_path: Path) -> None:
    """The files of a run must be as large as estimated, up to headers and names."""
    sources = write_sources(tmp_path / "sources")
    changes = ("samples.prompts=[]", "loss.text_aware_discriminator=true", "guidance.kind=clip")
    command = arguments(sources, tmp_path, *changes)
    config = load_config(command[1], command[3::2])
    result = CliRunner().invoke(main, ["train", *command])
    assert result.exit_code == 0, result.output
    disk = bills._disk(config, outline(config))
    (*_, newest) = sorted((tmp_path / "test" / "checkpoints").glob("*.ckpt"))
    state: dict[str, Any] = torch.load(newest, weights_only=True)

    def tensors(part: object) -> int:
        if isinstance(part, torch.Tensor):
            return part.nbytes
        values = part.values() if isinstance(part, dict) else part if isinstance(part, list | tuple) else ()
        return sum(map(tensors, values))

    # Adam also counts the steps of each weight, and the log keeps its sums: together less than 1 %.
    assert disk["a checkpoint"] == pytest.approx(tensors(state), rel=0.01)
    files = (tmp_path / "test" / "portrait").glob("*.safetensors")
    assert disk["the result"] == sum(value.nbytes for path in files for value in load_file(path).values())


# A step without storage.


@pytest.mark.lengthy
def test_memory_is_a_line_in_the_pictures(rehearsal: Rehearsal) -> None:
    few, more, most = (rehearsal.step(True, n, regularised=True).peaks for n in (2, 4, 8))
    assert few.keys() == {"generator", "discriminator"}
    expected = few["generator"] + 3 * (more["generator"] - few["generator"])
    assert most["generator"] == pytest.approx(expected, rel=0.02)


@pytest.mark.lengthy
def test_arithmetic_of_a_step(rehearsal: Rehearsal) -> None:
    """Guidance and R1 must add arithmetic, and pictures multiply it."""
    plain, regularised = (rehearsal.step(False, 2, regularised).flops for regularised in (False, True))
    guided = rehearsal.step(True, 2, regularised=False).flops
    assert 0 < plain < regularised and plain < guided
    assert rehearsal.step(False, 4, regularised=False).flops == pytest.approx(2 * plain, rel=0.01)


def test_arithmetic_of_a_convolution_is_counted() -> None:
    from dreamportrait.systems.dreamportrait.cost.shapes import _Arithmetic, _Fused

    with torch.device("meta"):
        conv, x = nn.Conv2d(3, 8, 5, padding=2), torch.empty(2, 3, 16, 16)
        q = torch.empty(2, 4, 10, 8)
        with _Fused() as fused, _Arithmetic() as counted:
            conv(x)
            out = torch.nn.functional.scaled_dot_product_attention(q, q, q)
    assert counted.total == 2 * 2 * 16 * 16 * 8 * 3 * 25
    assert out.shape == q.shape and fused.flops == 2 * 2 * 4 * 10 * 10 * (8 + 8)


def test_the_backend_is_set_back(rehearsal: Rehearsal) -> None:
    from eg3d_ops import backend

    before = backend()
    rehearsal.step(False, 1, regularised=False)
    assert backend() == before


# Time.


def test_recorded_figures_give_the_papers_hours() -> None:
    adapt, align = pace.ADAPT, pace.ALIGN
    assert adapt.images * pace.recorded_seconds(adapt.flops, None, "v100") / 8 == pytest.approx(8 * 3600)
    assert align.images * pace.recorded_seconds(adapt.flops, align.flops, "v100") / 8 == pytest.approx(48 * 3600)
    assert pace.recorded_seconds(adapt.flops, None, "a100") == pytest.approx(adapt.seconds * 34.2 / 58.4)


@pytest.mark.slow
def test_the_recorded_arithmetic_is_that_of_the_paper_s_recipe() -> None:
    config = load_config(ROOT / "configs/dreamportrait/celebatext_hq_paper.yaml")
    found = bills.estimate(config, 8)
    assert found.flops["plain"] == pytest.approx(pace.ADAPT.flops, rel=0.01)
    assert found.flops["guided"] == pytest.approx(pace.ALIGN.flops, rel=0.01)
    assert [stage.seconds for stage in found.stages] == pytest.approx([8 * 3600, 48 * 3600], rel=0.01)


def test_kinds_of_steps(mini: Config) -> None:
    shares = kinds(mini)  # R1 every 16 steps, density every 4
    assert sorted(shares.values()) == [1 / 16, 3 / 16, 12 / 16] and math.isclose(sum(shares.values()), 1)


@pytest.mark.lengthy
def test_a_probe_takes_real_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sources = write_sources(tmp_path / "sources")
    command = arguments(sources, tmp_path, "guidance.kind=clip")
    config = load_config(command[1], command[3::2])
    found = probe(config, config.stages[1], 1, repeats=1)
    assert found.seconds > 0 and found.memory > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sources"]  # nothing is left behind


# What fits.


def test_what_fits() -> None:
    memory = Memory((Part("weights", 4 * GIB),), base=0.0, each=2 * GIB)  # 1 + 1.1 * (4 + 2 n) GB
    assert memory.total(4) / GIB == pytest.approx(14.2)
    assert memory.largest(32, 16, 4) == 4 and memory.largest(32, 24, 4) == 8 and memory.largest(32, 80, 4) == 32
    assert memory.largest(32, 10, 4) is None and memory.largest(2, 10, 4) == 2


# The command.


def computed_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that computes at its first call and returns the same at all others."""
    found: list[Any] = []

    def once(*given: Any) -> Any:
        if not found:
            found.append(function(*given))
        return found[0]

    return once


@pytest.mark.lengthy
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second command, for a program, must print the numbers of the first one, for people. It computes none."""
    for name in ("with_preset", "estimate"):
        monkeypatch.setattr(bills, name, computed_once(getattr(bills, name)))
    out, sources = tmp_path / "bill.json", write_sources(tmp_path / "sources")
    options = arguments(sources, tmp_path, "guidance.kind=clip")
    command = ["estimate", *options, "--memory", "16", "--out", str(out)]
    people, program = CliRunner().invoke(main, command), CliRunner().invoke(main, [*command, "--json"])
    assert (people.exit_code, program.exit_code) == (0, 0), people.output + program.output
    assert "for 16 GB: --set trainer.precision=float16 --set guidance.checkpoint=true" in people.output
    assert "11,108" in people.output and "no figure of a CPU is recorded; use --probe" in people.output
    found = json.loads(out.read_text())
    assert found["pictures_at_a_time"] == 4 and found["fits"]["16"] == 4 and found["stages"][0]["seconds"] is None
    assert found["memory_bytes"]["guidance: CLIP"] > 0 and found["flops"]["plain"] < found["flops"]["guided"]
    assert json.loads(program.stdout) == found
    assert "for 16 GB: --set trainer.precision=float16" in program.stderr


def test_bad_batches_are_refused_first() -> None:
    command = ["estimate", "--config", str(MINI), "--set", "stages.1.accumulate=8"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1 and "whole groups of" in result.output and "Traceback" not in result.output
