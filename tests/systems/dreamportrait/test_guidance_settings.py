"""Tests of the settings of guidance and fake score: contradictions are named before anything is loaded."""

import pytest
from places import ROOT

from dreamportrait.core import settings
from dreamportrait.systems.dreamportrait.config import Config, load_config
from dreamportrait.systems.dreamportrait.step_settings import adam_settings, step_settings

MINI = ROOT / "configs" / "dreamportrait" / "mini.yaml"


def problems(*overrides: str) -> list[str]:
    return [str(problem) for problem in settings.read(Config, MINI, overrides)[1]]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["fake.updates=4"], "guidance.kind and fake.updates: only kind=dmd trains a fake score, and kind is sds"),
        (["guidance.kind=dmd", "fake.updates=0"], "fake.updates: 0: a fake score that never learns stays"),
        (["guidance.kind=dmd", "fake.warmup_images=100"], "fake.warmup_images and data.batch: 100 images are no whole"),
        (
            ["guidance.kind=dmd", "fake.lora_rank=8", "trainer.precision=float16"],
            "fake.lora_rank and trainer.precision: gradients through a UNet in float16 vanish",
        ),
        (["guidance.eta=0.2"], "guidance.eta and guidance.kind: only kind=asd shifts t, and kind is sds"),
        (
            ["guidance.kind=clip", "guidance.divergence=js"],
            "guidance.divergence and guidance.kind: js weights a diffusion",
        ),
        (
            ["guidance.divergence=js", "model.freeze_discriminator=true"],
            "guidance.divergence and model.freeze_discriminator: js needs a discriminator that follows",
        ),
        (
            ["guidance.divergence=js", "loss.gan_weight=0"],
            "guidance.divergence and loss.gan_weight: js needs a discriminator that follows",
        ),
        (["guidance.divergence=fkl"], "guidance.divergence: 'fkl': "),
        (["guidance.kind=vsd"], "guidance.kind: 'vsd': "),
    ],
)
def test_contradictions(overrides, expected):
    found = problems(*overrides)
    assert len(found) == 1 and found[0].startswith(expected), found


@pytest.mark.parametrize(
    "overrides",
    [
        ["guidance.kind=csd"],
        ["guidance.kind=asd", "guidance.eta=0.2"],
        ["guidance.kind=dmd", "fake.updates=4", "fake.lora_rank=8"],
        ["guidance.kind=dmd", "guidance.divergence=js"],
        ["guidance.divergence=js"],
        ["guidance.kind=dmd", "fake.warmup_images=0"],
    ],
    ids=" ".join,
)
def test_what_goes_together(overrides):
    assert problems(*overrides) == []


def test_the_fake_score_is_taught_in_guided_stages_and_compared_now_and_then():
    plain, dmd = load_config(MINI), load_config(MINI, ["guidance.kind=dmd", "fake.lr=3e-4"])
    guided = [640 + 16 * k for k in range(33)]
    assert not any(step_settings(plain, images).taught for images in guided)
    assert not step_settings(dmd, 0).taught and all(step_settings(dmd, images).taught for images in guided)
    assert [images for images in guided if step_settings(dmd, images).monitored] == [768, 1024]
    assert adam_settings(dmd)["fake_score"].lr == 3e-4
