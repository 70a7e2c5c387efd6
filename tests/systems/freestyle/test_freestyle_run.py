"""Tests of train.py with `system: freestyle`: its files, stopped runs, refusals, several processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from places import ROOT
from same_states import assert_same
from tiny_styles import write_config

import train
from dreamportrait.core import settings
from dreamportrait.core.errors import WeightsError
from dreamportrait.eg3d.folder import load_generator, save_generator
from dreamportrait.systems.freestyle.folder import load_generator_of, load_network_of, read_model
from dreamportrait.systems.freestyle.generator import PictureTo3D
from dreamportrait.systems.freestyle.module import PretrainingModule
from dreamportrait.systems.freestyle.names import locate_model
from dreamportrait.systems.freestyle.run_config import FreestyleConfig
from dreamportrait.training.states import load_state

CONFIGS = sorted((ROOT / "configs" / "freestyle").rglob("*.yaml"))


def run(path: Path, *words: str) -> Result:
    return CliRunner().invoke(train.main, ["--config", str(path), *words])


def trained(path: Path, *words: str) -> Path:
    """Run train.py, check that it succeeds, and return the folder of the run."""
    result = run(path, *words)
    if result.exception is not None:
        raise AssertionError(result.output) from result.exception
    return path.parent / "runs" / "tiny"


def state(folder: Path, images: int = 16) -> dict[str, object]:
    found = load_state(folder / "checkpoints" / f"images-{images:09d}.ckpt")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Return the folder of a whole run, with sheets on the way."""
    return trained(write_config(tmp_path_factory.mktemp("finished")), "--set", "trainer.sample_every_images=16")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_files_are_valid_and_name_themselves(path):
    config = settings.load(FreestyleConfig, path)
    assert config.run.name == path.stem
    assert config.edit.settings().sampling.start == 0.9 and config.tune.settings().input == "source"


def test_a_resolved_configuration_reads_back(tmp_path):
    config = settings.load(FreestyleConfig, CONFIGS[-1])
    (tmp_path / "again.yaml").write_text(config.to_yaml())
    assert settings.load(FreestyleConfig, tmp_path / "again.yaml") == config


@pytest.mark.lengthy
def test_a_run_leaves_a_model(finished, tmp_path):
    folder = finished
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    expected = {"config.yaml", "log.csv", "samples/images-000000016.png", "i2t/config.json", "i2t/i2t.safetensors"}
    expected |= {"i2t/sheet.png", "i2t/files.json"} | {f"checkpoints/images-{n:09d}.ckpt" for n in (8, 16)}
    assert expected <= found
    assert not [name for name in found if "unfinished" in name]
    about = read_model(locate_model(folder))
    assert (about.editor, about.few_shot.views, about.tuning.steps, about.licence) == (None, 4, 7, "of the tests")
    network = load_network_of(folder / "i2t")
    saved = state(folder)["state_dict"]
    assert isinstance(saved, dict)
    assert all(torch.equal(x, saved[f"averaged.{name}"]) for name, x in network.state_dict().items())
    assert not any(p.requires_grad for p in network.parameters())
    assert PictureTo3D(network, load_generator_of(folder / "i2t")).i2t is network
    changed = load_generator(read_model(folder / "i2t").pretrained)  # a model knows its generator
    changed.backbone.mapping.w_avg.add_(1)
    save_generator(changed, tmp_path / "other", licence="of the tests")
    with pytest.raises(WeightsError, match=r"was trained with the generator .* and .*other is [0-9a-f]{12}"):
        load_generator_of(folder / "i2t", str(tmp_path / "other"))


@pytest.mark.lengthy
def test_a_stopped_run_continues_to_the_bit(finished, tmp_path):
    path = write_config(tmp_path)
    parts = PretrainingModule.training_step  # the run fails in its third step, after the checkpoint of the second

    def failing(self: PretrainingModule, batch: int, batch_idx: int) -> None:
        if self.images == 8:
            raise ValueError("the power failed")
        parts(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PretrainingModule, "training_step", failing)
        assert "the power failed" in run(path).output
    again = trained(path)
    for part in ("state_dict", "optimizer_states", "images"):
        assert_same(state(finished)[part], state(again)[part], part)
    rows = [(folder / "log.csv").read_text().splitlines() for folder in (finished, again)]
    assert len(rows[0]) == len(rows[1]) == 5


@pytest.mark.lengthy
def test_not_a_number_stops_the_run(tmp_path):
    result = run(write_config(tmp_path), "--set", "pretrain.lr=1e38")
    assert result.exit_code == 1 and "NaN" in result.output or "nan" in result.output
    assert "lower the learning rate" in result.output


def test_a_dry_run_writes_nothing(tmp_path):
    before = sorted(write_config(tmp_path).parent.iterdir())
    result = run(tmp_path / "tiny.yaml", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "code 8 x 8 x 8" in result.output and "pretrain: 16 images, 4 steps" in result.output
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.pretrained=nowhere", "the generator nowhere is not there"),
        ("perceptual=clip:mini/clip-b", "scores results and must not see training"),
        ("tune.perceptual=lpips:nowhere.pth", "nowhere.pth is not there"),
        ("edit.template=no place", "must hold {t}"),
        ("edit.views=101", "less than or equal to 100"),
        ("trainer.measure_every_images=8", "pretraining takes no scores on the way"),
        ("trainer.precision=float16", "choose bfloat16"),
        ("stages.0.accumulate=2", "parts are not accumulated here"),
        ("model.code_size=12", "must be a power of two"),
        ("tun.steps=3", "did you mean tune?"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, change, message):
    result = run(write_config(tmp_path), "--set", change)
    assert result.exit_code == 1 and message in result.output, result.output
    assert not (tmp_path / "runs").exists()


def test_an_unknown_system_is_refused(tmp_path):
    path = tmp_path / "other.yaml"
    path.write_text("system: sculpture\n")
    assert "must be dreamportrait or freestyle" in run(path).output


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path):
    """The heads of a batch are drawn each from a seed of its own, so the parts of two processes make the same batch."""
    folders = []
    for name, launcher in (("one", ()), ("two", ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"))):
        (tmp_path / name).mkdir()
        path = write_config(tmp_path / name)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, *launcher, str(ROOT / "train.py"), "--config", str(path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        folders.append(path.parent / "runs" / "tiny")
    one, two = (state(folder, 16)["state_dict"] for folder in folders)
    start, _ = (state(folder, 8)["state_dict"] for folder in folders)
    assert isinstance(one, dict) and isinstance(two, dict) and isinstance(start, dict)
    moved, apart = (
        torch.cat([(one[name] - other[name]).flatten().double() for name in one]).norm() for other in (start, two)
    )
    # Half sums in another order cost some roundings of 6e-8, which Adam's first steps enlarge where gradients are tiny.
    assert moved > 0.01 and apart < 1e-3 * moved
