"""Tests of training with ASD, CSD, DMD and the Jensen-Shannon weight: what learns, warm-up, resume, other kinds."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from diffusion_folders import write_own
from same_states import assert_same
from tiny_training import Recorder, config, fit, module
from toy_run import arguments, write_sources

import train
from dreamportrait.core.config import Guidance
from dreamportrait.guidance.fake_score import FakeScore
from dreamportrait.guidance.guides import MatchingGuide
from dreamportrait.guidance.stable_diffusion import StableDiffusion, load_stable_diffusion
from dreamportrait.systems.dreamportrait import callbacks
from dreamportrait.systems.dreamportrait.callbacks import TextSensitivityMonitor
from dreamportrait.systems.dreamportrait.config import Config
from dreamportrait.systems.dreamportrait.step import DreamPortraitModule
from dreamportrait.training.states import load_state

pytestmark = pytest.mark.lengthy
FAKE = {"updates": 2, "lr": 1e-3, "warmup_images": 8, "bank": 8}


@pytest.fixture(scope="module")
def prior(tmp_path_factory) -> StableDiffusion:
    return load_stable_diffusion(str(write_own(tmp_path_factory.mktemp("diffusion"))), offline=True)


def matched(prior: StableDiffusion, c: Config | None = None, rank: int | None = None) -> DreamPortraitModule:
    """Return a tiny training module with distribution matching."""
    c = c or config(guidance={"kind": "dmd"}, fake=FAKE)
    plain = module(c)
    return DreamPortraitModule(
        plain.generator, plain.critic, c, MatchingGuide(prior, c.guidance, FakeScore(prior, rank))
    )


def whole(state: dict[str, Any]) -> dict[str, Any]:
    return {name: state[name] for name in ("state_dict", "optimizer_states", "images")}


# The step.


@pytest.mark.parametrize("rank", [None, 2], ids=["copy", "LoRA"])
def test_the_fake_score_learns_and_the_prior_does_not(prior, rank):
    made, record = matched(prior, rank=rank), Recorder()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    frozen = {name: value.clone() for name, value in prior.unet.state_dict().items()}
    runner = fit(made, record)
    assert [[group["name"] for group in each.param_groups] for each in runner.optimizers] == [
        ["generator", "mapper", "adapters"],
        ["discriminator"],
        ["fake_score"],
    ]
    changed = [
        name
        for name, _ in made.fake_score.named_parameters()
        if not torch.equal(made.state_dict()[f"fake_score.{name}"], before[f"fake_score.{name}"])
    ]
    assert len(changed) == len(list(made.fake_score.parameters())) and made.fake_score.warm == 1
    assert all(torch.equal(value, frozen[name]) for name, value in prior.unet.state_dict().items())
    assert ["fake_score" in losses for losses in record.losses] == [False, False, True, True]
    assert not any(name.startswith("matching") for name in made.state_dict())
    # Two optimisers in the first two steps; then two updates of warm-up and two in each step.
    assert len(record.gradients) == 2 * 2 + 2 + 2 * (2 + 2)


def test_the_warm_up_moves_the_fake_score_alone(prior):
    c = config(guidance={"kind": "dmd"}, fake=FAKE | {"warmup_images": 40})
    made = matched(prior, c)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    seen: list[dict[str, torch.Tensor]] = []
    portray = made.portray

    def first_render(*given: Any) -> Any:
        seen.append({name: value.clone() for name, value in made.state_dict().items()})
        return portray(*given)

    made.portray = first_render
    made.images = 8
    stages = [{"name": "align", "images": 16, "guidance": True, "accumulate": 2}]
    object.__setattr__(c, "stages", config(stages=stages).stages)
    fit(made)
    # Renders of the bank: two batches of two parts. Then those of the first step, after the warm-up.
    moved = {name.split(".")[0] for name, value in seen[4].items() if not torch.equal(value, before[name])}
    assert moved == {"fake_score"}
    assert not any(not torch.equal(value, seen[0][name]) for name, value in seen[3].items())


def test_no_warm_up(prior):
    made = matched(prior, config(guidance={"kind": "dmd"}, fake=FAKE | {"warmup_images": 0}))
    record = Recorder()
    fit(made, record)
    assert made.fake_score.warm == 0 and len(record.gradients) == 2 * 2 + 2 * (2 + 2)


def test_monitors_are_logged_and_a_deaf_fake_score_is_reported(prior, monkeypatch, caplog):
    monkeypatch.setattr("dreamportrait.systems.dreamportrait.step_settings.MONITOR_EVERY", 1)
    made, record = matched(prior), Recorder()
    words = made.fake_score.null_words
    predict = made.fake_score.predict
    monkeypatch.setattr(made.fake_score, "predict", lambda x, t, w: predict(x, t, words.expand_as(w)))
    with caplog.at_level(logging.WARNING, logger=callbacks.__name__):
        fit(made, record, TextSensitivityMonitor())
    assert [losses.get("text_sensitivity") for losses in record.losses] == [None, None, 0.0, 0.0]
    assert record.losses[-1]["fake_loss_ratio"] > 0
    assert caplog.text.count("or the fake score forgets it") == 1 and "raise fake.updates" in caplog.text


def test_js_gives_each_sample_a_weight(prior):
    """Weights of 2 and 0 must double one sample's gradient and remove the other's."""
    made = matched(prior)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def slope(weights: torch.Tensor | None) -> torch.Tensor:
        torch.manual_seed(3)
        (found,) = torch.autograd.grad(made.guide(images, ["a hat", "a man"], torch.zeros(2, 25), weights), images)
        return found

    # With psi = eps_c and a scale of 10 the gradient is the text's direction.
    plain, weighted = slope(None), slope(torch.tensor([2.0, 0.0]))
    torch.testing.assert_close(weighted[0], 2 * plain[0])
    assert plain[1].any() and not weighted[1].any()
    seen = []
    js = config(guidance={"kind": "dmd", "divergence": "js"}, fake=FAKE)
    weighing = matched(prior, js)
    guide = weighing.guide
    weighing.guide = lambda *given: seen.append(given[3]) or guide(*given)
    fit(weighing)
    measured = 2  # parts of the batch whose gradients are measured when guidance begins (balance.py)
    assert len(seen) == 4 + measured and all(abs(float(weights.mean()) - 1) < 1e-5 for weights in seen)


def test_kinds_with_other_names_are_refused(prior):
    guide = MatchingGuide(prior, Guidance(kind="dmd"), FakeScore(prior, None))
    with pytest.raises(ValueError, match="the fake score has nothing to learn from"):
        guide.draw_lessons(2)


# Runs.


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    folder = write_sources(tmp_path_factory.mktemp("sources"))
    write_own(folder / "DIFFUSION")
    return folder


def trained(sources: Path, runs: Path, kind: str, *changes: str, options: tuple[str, ...] = ()) -> dict[str, Any]:
    """Train with one kind of guidance through train.py and return the last checkpoint."""
    fake = [f"fake.{name}={value}" for name, value in FAKE.items()] if kind == "dmd" else []
    guidance = [f"guidance.kind={kind}", f"guidance.source={sources / 'DIFFUSION'}", "samples.prompts=[]"]
    given = arguments(sources, runs, *guidance, *fake, *changes)
    result = CliRunner().invoke(train.main, [*given, *options])
    assert result.exception is None, result.output
    state = load_state(sorted((runs / "test/checkpoints").glob("*.ckpt"))[-1])
    assert state is not None
    return state


@pytest.fixture(scope="module")
def start(sources: Path, tmp_path_factory) -> Path:
    """Return the checkpoint between the two stages of a run with SDS."""
    folder = tmp_path_factory.mktemp("start")
    trained(sources, folder, "sds", "stages=[{name: adapt, images: 8}]")
    return folder / "test/checkpoints/images-000000008.ckpt"


@pytest.mark.parametrize("kind", ["asd", "dmd"])
def test_a_continued_run_is_bit_for_bit_the_run_that_was_not(sources, tmp_path, kind):
    """The run stops twice: before the warm-up of the fake score and after it."""
    changes = ("guidance.divergence=js",)
    straight = trained(sources, tmp_path / "straight", kind, *changes)
    first = ("stages=[{name: adapt, images: 8}, {name: align, images: 4, guidance: true, accumulate: 2}]",)
    trained(sources, tmp_path / "parts", kind, *changes, *first)
    again = trained(sources, tmp_path / "parts", kind, *changes)
    assert again["images"] == 24
    assert_same(whole(again), whole(straight))


@pytest.mark.parametrize("kind", ["csd", "dmd"])
def test_a_run_begins_from_a_checkpoint_with_another_guidance(sources, start, tmp_path, kind):
    state = trained(sources, tmp_path / kind, kind, options=("--resume", str(start)))
    assert state["images"] == 24
    back = trained(
        sources,
        tmp_path / "back",
        "sds",
        options=("--resume", str(tmp_path / kind / "test/checkpoints" / "images-000000016.ckpt")),
    )
    assert back["images"] == 24 and not any(name.startswith("fake_score") for name in back["state_dict"])
    assert len(back["optimizer_states"]) == 2


def test_a_frozen_discriminator_has_no_optimiser_to_continue(sources, start, tmp_path):
    frozen = "model.freeze_discriminator=true"
    state = trained(sources, tmp_path / "dmd", "dmd", frozen, options=("--resume", str(start)))
    names = [each["param_groups"][0]["name"] for each in state["optimizer_states"]]
    assert names == ["generator", "fake_score"]
