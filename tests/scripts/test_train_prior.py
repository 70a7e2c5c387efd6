"""Tests of train.py with a first stage that fits a text prior, on toy networks."""

import gc
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from same_states import assert_same
from toy_run import arguments, write_sources

import train
from dreamportrait.prior import fitting, one_pass
from dreamportrait.systems.dreamportrait import prior
from dreamportrait.systems.dreamportrait.folder import load_portrait
from dreamportrait.training.states import load_state

pytestmark = pytest.mark.lengthy

QUIET = "samples.prompts=[]"
STEPS = "inverter_steps: 2, content_steps: 2, flow_steps: 2, one_pass_steps: 2, steps: 2"
PRIOR = f"{{faces: 40, captions: 2, answers: 20, batch: 8, {STEPS}}}"
SPEAK = (
    "text.clip=mini/clip-a",  # the toy CLIP's picture tower has one stage only
    "model.conditioning.mapper_blocks=1",
    "model.conditioning.mapper_width=8",
)


ALONE = (*SPEAK, f"stages=[{{name: speak, prior: {PRIOR}}}]", QUIET)


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    return write_sources(tmp_path_factory.mktemp("sources"))


def trained(sources: Path, runs: Path, *changes: str) -> Path:
    """Run train.py, check that it succeeds, and return the folder of the run."""
    result = CliRunner().invoke(train.main, arguments(sources, runs, *changes))
    assert result.exit_code == 0, result.output
    return runs / "test"


@pytest.fixture(scope="module")
def whole(sources, tmp_path_factory) -> Path:
    """Return a run of the prior alone that was not stopped."""
    return trained(sources, tmp_path_factory.mktemp("whole"), *ALONE)


def checkpoint(folder: Path) -> dict[str, Any]:
    state = load_state(folder / "checkpoints" / "images-000000024.ckpt")
    assert state is not None
    return state


def test_a_prior_alone_is_a_run(sources, whole):
    folder = whole
    made, spoken = (load_portrait(folder / name).generator.mapper for name in ("portrait", "prior/portrait"))
    assert_same(dict(made.state_dict()), dict(spoken.state_dict()))
    assert made.net.leave.bias.any()
    written = (folder / "prior/mapper.safetensors").stat().st_mtime_ns
    trained(sources, folder.parent, *ALONE)  # the same command again
    assert (folder / "prior/mapper.safetensors").stat().st_mtime_ns == written


def test_stages_after_a_prior_train_on_and_continue_bit_for_bit(sources, tmp_path):
    later = "{name: adapt, images: 8}, {name: align, images: IMAGES, guidance: true}"
    stages = f"stages=[{{name: speak, prior: {PRIOR}}}, {later}]"
    settings = (*SPEAK, "loss.keep_weight=1", QUIET)
    whole = trained(sources, tmp_path / "whole", *settings, stages.replace("IMAGES", "16"))
    trained(sources, tmp_path / "parts", *settings, stages.replace("IMAGES", "4"))
    parts = trained(sources, tmp_path / "parts", *settings, stages.replace("IMAGES", "16"))
    first, second = checkpoint(whole), checkpoint(parts)
    for part in ("state_dict", "optimizer_states", "images"):
        assert_same(first[part], second[part])
    state = first["state_dict"]
    assert state["prior.net.leave.bias"].any() and not torch.equal(
        state["prior.net.leave.bias"], state["generator.mapper.net.leave.bias"]
    )
    assert torch.equal(state["prior.flow.net.leave.bias"], state["generator.mapper.flow.net.leave.bias"])


# Signals while the prior is fitted.


@pytest.mark.parametrize(
    ("part", "number"),
    [("picture to w", signal.SIGINT), ("prior", signal.SIGTERM), ("one pass", signal.SIGTERM)],
)
def test_a_signal_ends_the_fitting_after_a_step_and_it_continues_bit_for_bit(
    sources, whole, tmp_path, monkeypatch, part, number
):
    begun = kill_at(part, number, monkeypatch)
    code, said = stopped(sources, tmp_path / "parts", *ALONE)
    assert begun == [part] and code == 128 + number, said
    folder = tmp_path / "parts" / "test" / "prior"
    state = folder / {"picture to w": "inverter", "prior": "flow", "one pass": "one-pass"}[part] / "state.pt"
    assert f"{number.name}: stopped after step 1 of 2 of {part}; the same command continues from {state}" in said
    saved = load_state(state)
    assert saved is not None and saved["step"] == 1
    parts = trained(sources, tmp_path / "parts", *ALONE)
    first, second = (load_portrait(each / "portrait").generator.mapper.state_dict() for each in (whole, parts))
    assert_same(dict(first), dict(second))


def stopped(sources: Path, runs: Path, *changes: str) -> tuple[int, str]:
    """Run train.py. Return its exit code and what it said, without what would keep the run's folder locked."""
    done = CliRunner().invoke(train.main, arguments(sources, runs, *changes))
    found = done.exit_code, done.output
    del done
    gc.collect()
    return found


def kill_at(part: str, number: signal.Signals, monkeypatch) -> list[str]:
    """Send this process a signal in the middle of the first update of a training. Return a list that notes it."""
    clip, noted = fitting.nn.utils.clip_grad_norm_, list[str]()
    train_ = fitting.train

    def killing(parameters, most):
        if not noted:
            noted.append(part)
            os.kill(os.getpid(), number)
        return clip(parameters, most)

    def patched(net, loss, folder, *, title, **rest):
        if title == part:
            monkeypatch.setattr(fitting.nn.utils, "clip_grad_norm_", killing)
        return train_(net, loss, folder, title=title, **rest)

    for module in (fitting, one_pass):
        monkeypatch.setattr(module, "train", patched)
    return noted


def test_a_signal_while_pictures_are_read_ends_after_a_batch(sources, tmp_path, monkeypatch):
    seen, features = [], prior.PictureFeatures.__call__

    def killing(self, images):
        seen.append(len(images))
        os.kill(os.getpid(), signal.SIGTERM)
        return features(self, images)

    monkeypatch.setattr(prior.PictureFeatures, "__call__", killing)
    alone = (*SPEAK, f"stages=[{{name: speak, prior: {PRIOR}}}]", QUIET)
    code, said = stopped(sources, tmp_path, *alone)
    assert code == 143 and seen == [16]  # one batch of renders
    assert "SIGTERM: stopped during renders of the generator; the same command continues" in said
    assert not (tmp_path / "test" / "prior" / "mapper.safetensors").exists()
