"""Tests of the cost of a portrait: what each stage runs, how memory is counted, the report. Speed is not tested."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from click.testing import CliRunner, Result
from places import ROOT
from tiny_pipeline import write_portrait
from torch import nn

from dreamportrait.core.timing import PeakMemory, peak_megabytes, seconds
from dreamportrait.systems.dreamportrait import efficiency
from dreamportrait.systems.dreamportrait.full_size import full_size_encoder, full_size_portrait
from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline

STAGES = [efficiency.TEXT, efficiency.PLANES, efficiency.IMAGE, efficiency.VIEW]


def load_script() -> ModuleType:
    path = ROOT / "eval" / "efficiency.py"
    spec = importlib.util.spec_from_file_location("efficiency_script", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = load_script()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_portrait(tmp_path_factory.mktemp("models") / "portrait")


@pytest.fixture(scope="module")
def pipe(folder: Path) -> DreamPortraitPipeline:
    return DreamPortraitPipeline.from_pretrained(folder)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(SCRIPT.main, [str(each) for each in arguments])


# Stages.


def test_what_each_stage_runs(pipe: DreamPortraitPipeline) -> None:
    ran: list[str] = []
    generator = pipe.generator.generator
    parts = {"text": pipe.encoder.tower.blocks[0], "backbone": generator.backbone.synthesis}
    parts["image"] = generator.superresolution
    hooks = [
        part.register_forward_hook(lambda module, given, out, name=name: ran.append(name))
        for name, part in parts.items()
    ]
    found = {}
    with torch.no_grad():
        for name, stage in efficiency.stages(pipe.generator, pipe.encoder, "a man").items():
            ran.clear()
            stage()
            found[name] = list(ran)
    for hook in hooks:
        hook.remove()
    assert found == {
        efficiency.TEXT: ["text"],
        efficiency.PLANES: ["text", "backbone"],
        efficiency.IMAGE: ["text", "backbone", "image"],
        efficiency.VIEW: ["image"],
    }


def test_the_image_is_what_the_pipeline_makes(pipe: DreamPortraitPipeline) -> None:
    with torch.no_grad():
        image = efficiency.stages(pipe.generator, pipe.encoder, "a man")[efficiency.IMAGE]()
    assert torch.equal(image, pipe("a man", seed=0).colors)


def test_costs(pipe: DreamPortraitPipeline) -> None:
    costs = efficiency.measure(pipe.generator, pipe.encoder, "cpu", repeats=3)
    assert [cost.stage for cost in costs] == STAGES
    assert all(0 < cost.fastest <= cost.seconds <= cost.slowest and cost.peak_mb >= 0 for cost in costs)
    with pytest.raises(ValueError, match="repeats=0: must be at least 1"):
        efficiency.measure(pipe.generator, pipe.encoder, "cpu", repeats=0)


def test_a_cost_is_a_median() -> None:
    assert efficiency._cost("text", [3.0, 1.0, 9.0], 5.0) == efficiency.Cost("text", 3.0, 1.0, 9.0, 5.0)


# Time and memory.


def test_the_peak_counts_what_is_held_at_once_and_not_what_was_there() -> None:
    before = torch.ones(2**22)  # 16 MB

    def run(count: int) -> None:
        held = [torch.ones(2**24) for _ in range(count)]  # 64 MB each
        del held

    one, two = (peak_megabytes(lambda count=count: run(count), "cpu") for count in (1, 2))  # type: ignore[misc]
    assert 60 < one < 90 and 120 < two < 160
    del before


def test_a_peak_is_read_after_it_has_passed() -> None:
    peak = PeakMemory("cpu")
    peak.start()
    held = torch.ones(2**24)
    del held
    assert peak.megabytes() > 60


def test_memory_needs_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    with pytest.raises(OSError, match=r"clear_refs and glibc, which \w+ does not have; measure on Linux, or on a GPU"):
        PeakMemory("cpu").start()


def test_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([5.0, 7.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    assert seconds(lambda: None, "cpu") == 2.5


def test_megabytes_of_weights() -> None:
    module = nn.Linear(1024, 1023)  # with its bias 1025 x 1023 floats of 4 bytes
    module.register_buffer("more", torch.zeros(1024, dtype=torch.float16))
    assert efficiency.megabytes(module) == (4 * 1025 * 1023 + 2 * 1024) / 2**20


def test_the_full_size() -> None:
    with torch.device("meta"):
        portrait, encoder = full_size_portrait("float16"), full_size_encoder("meta")
    config = portrait.config
    assert (config.image_resolution, config.render_resolution, config.precision) == (512, 128, "float16")
    assert (encoder.tower.width, len(encoder.tower.blocks), encoder.tower.context_length) == (1024, 24, 77)
    assert portrait.conditioning.text_width == encoder.tower.width and not portrait.training


# The script.


def test_the_script_writes_a_report(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("--checkpoint", folder, "--device", "cpu", "--repeats", 2, "--out", out)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == sorted(SCRIPT.NAMES)
    report = json.loads((out / SCRIPT.NAMES[0]).read_text())
    assert [stage["stage"] for stage in report["stages"]] == STAGES
    assert report["model"] == str(folder) and report["sizes"] == {"image": 16, "rendered": 8, "samples": 8}
    assert report["precision"] == "float32" and report["repeats"] == 2 and report["machine"]["device"] == "cpu"
    assert report["seconds_to_planes"] == report["stages"][1]["seconds"]
    peaks = [stage["peak_mb"] for stage in report["stages"]]
    assert report["memory_mb"] == pytest.approx(sum(report["weights_mb"].values()) + max(peaks))
    text = (out / SCRIPT.NAMES[1]).read_text()
    assert text in result.output and all(f"| {stage} |" in text for stage in STAGES)
    assert "| DreamPortrait (paper, V100) | about 1/15 | about 4.5 |" in text
    assert f"| {report['seconds_to_planes']:.3g} | {report['memory_mb'] / 1000:.3g} |" in text


def test_a_report_is_not_replaced_unasked(folder: Path, tmp_path: Path) -> None:
    (tmp_path / SCRIPT.NAMES[0]).write_text("mine")
    arguments = ("--checkpoint", folder, "--device", "cpu", "--repeats", 1, "--out", tmp_path)
    refused = run(*arguments)
    assert refused.exit_code == 1 and "holds efficiency.json; name another folder, or add --over" in refused.output
    assert (tmp_path / SCRIPT.NAMES[0]).read_text() == "mine"
    assert run(*arguments, "--overwrite").exit_code == 0
    assert "stages" in json.loads((tmp_path / SCRIPT.NAMES[0]).read_text())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "mini", "--full-size"], "--checkpoint mini and --full-size: these are two different models"),
        (["--checkpoint", "nowhere"], "no text-to-3D model 'nowhere': it is neither 'mini' nor a folder"),
        (["--repeats", "0"], "0 is not in the range"),
        (["--device", "tpu"], "'tpu' is not one of"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code != 0 and message in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu() -> None:
    assert "--device cuda: PyTorch sees no GPU here; choose cpu" in run("--device", "cuda", "--full-size").output
