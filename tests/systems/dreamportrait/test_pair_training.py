"""Tests of training with the critic of pairs of w and text: what learns, resume, settings."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from same_states import assert_same
from tiny_training import DISCRIMINATOR, GENERATOR, WIDTH, Recorder, config, fit, loader

from dreamportrait.core.errors import WeightsError
from dreamportrait.core.settings import ConfigError
from dreamportrait.eg3d.discriminator import DualDiscriminator
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.prior.fitting import Pairs
from dreamportrait.prior.pair_critic import PairGame
from dreamportrait.systems.dreamportrait.conditioning import ConditioningConfig
from dreamportrait.systems.dreamportrait.config import Config, load_config
from dreamportrait.systems.dreamportrait.continuing import fitted
from dreamportrait.systems.dreamportrait.critic import Critic
from dreamportrait.systems.dreamportrait.generator import PortraitGenerator
from dreamportrait.systems.dreamportrait.mapper import PriorMapper
from dreamportrait.systems.dreamportrait.preflight import missing
from dreamportrait.systems.dreamportrait.prior import fitted_pairs
from dreamportrait.systems.dreamportrait.step import PAIRS, DreamPortraitModule

CONFIGS = Path(__file__).parents[3] / "configs" / "dreamportrait"
CONDITIONING = {"token_dim": 8, "heads": 2, "mapper_blocks": 1, "mapper_width": 16}
STAGES = [{"name": "align", "images": 8}]


def settings(weight: float = 2.0, accumulate: int = 1) -> Config:
    loss = {"pair_weight": weight, "pairs": "pairs.safetensors" if weight else None}
    stages = [STAGES[0] | {"accumulate": accumulate}]
    return config(model={"conditioning": CONDITIONING}, guidance={"kind": "none"}, loss=loss, stages=stages)


def pairs() -> Pairs:
    numbers = torch.Generator().manual_seed(0)
    return Pairs(torch.randn(20, 3, GENERATOR.w_dim, generator=numbers), torch.randn(20, 2, WIDTH, generator=numbers))


def made(c: Config | None = None) -> DreamPortraitModule:
    """Return a training module whose mapper moves w. Its weights are the same each time."""
    c = c or settings()
    torch.manual_seed(0)
    conditioning = ConditioningConfig(**vars(c.model.conditioning), text_width=WIDTH)
    generator = PortraitGenerator.equip(TriPlaneGenerator(GENERATOR), conditioning)
    assert isinstance(generator.mapper, PriorMapper)
    torch.nn.init.normal_(generator.mapper.net.leave.weight, std=0.1)
    game = PairGame(pairs()) if c.loss.pair_weight else None
    return DreamPortraitModule(generator, Critic(DualDiscriminator(DISCRIMINATOR)), c, pair_game=game)


def checkpoint(of: DreamPortraitModule) -> dict[str, Any]:
    states = [each.state_dict() for each in of.configure_optimizers()]
    return {"state_dict": of.state_dict(), "optimizer_states": states, "images": 8}


@pytest.mark.lengthy
def test_the_critic_learns_beside_the_others() -> None:
    playing, record = made(), Recorder()
    before = {name: value.clone() for name, value in playing.state_dict().items()}
    runner = fit(playing, record)
    assert [each.param_groups[0]["name"] for each in runner.optimizers] == ["generator", "discriminator", "pair_critic"]
    assert all({"pairs", "pair_critic"} <= losses.keys() for losses in record.losses)
    after = playing.state_dict()
    moved = {name for name in after if name.startswith("pair_critic.") and not torch.equal(after[name], before[name])}
    assert moved == {f"pair_critic.{name}" for name, _ in playing.pair_critic.named_parameters()}


def test_the_loss_of_pairs_reaches_the_mapper_alone() -> None:
    playing = made()
    game = playing.pair_game
    torch.nn.init.normal_(game.critic.joint[-1].weight)
    part = next(iter(loader(playing.config)))
    drawn = playing.draw_pairs(game, part)
    assert len(drawn.fake) == PAIRS * len(part)
    game.mapper_loss(drawn).backward()
    touched = {name.split(".")[0] for name, p in playing.generator.named_parameters() if p.grad is not None}
    assert touched == {"mapper"}


@pytest.mark.lengthy
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_repeats_itself(accumulate: int) -> None:
    states = []
    for _ in range(2):
        playing = made(settings(accumulate=accumulate))
        fit(playing)
        states.append(dict(playing.state_dict()))
    assert_same(*states)


def test_checkpoints_with_and_without_a_critic() -> None:
    with_critic, without = made(), made(settings(0))
    begun = fitted(checkpoint(without), with_critic, with_critic.configure_optimizers(), with_critic.config)
    assert begun["state_dict"].keys() == with_critic.state_dict().keys() and len(begun["optimizer_states"]) == 2
    dropped = fitted(checkpoint(with_critic), without, without.configure_optimizers(), without.config)
    assert dropped["state_dict"].keys() == without.state_dict().keys() and len(dropped["optimizer_states"]) == 2
    kept = fitted(checkpoint(with_critic), with_critic, with_critic.configure_optimizers(), with_critic.config)
    assert len(kept["optimizer_states"]) == 3


# Bad input.


def test_a_weight_needs_pairs() -> None:
    c = settings()
    with pytest.raises(ValueError, match=r"loss.pair_weight=2.0 and no pairs were given"):
        DreamPortraitModule(made().generator, made().critic, c)


@pytest.mark.parametrize(
    ("file", "changes", "text"),
    [
        ("mini.yaml", ["loss.pair_weight=1", "loss.pairs=there"], "only the mapper of a text prior learns from pairs"),
        (
            "mini_speak.yaml",
            ["loss.pair_weight=1", "stages=[{name: adapt, images: 16}]"],
            "no pairs to learn from; begin with a stage that fits a prior",
        ),
        ("mini_speak.yaml", ["loss.pairs=there"], "pairs that nobody reads"),
    ],
)
def test_contradictions(file: str, changes: list[str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        load_config(CONFIGS / file, changes)


def test_pairs_that_are_missing_or_of_other_networks(tmp_path: Path) -> None:
    path = tmp_path / "pairs.safetensors"
    named = load_config(CONFIGS / "mini_speak.yaml", ["loss.pair_weight=1", f"loss.pairs={path}"])
    assert [problem.keys for problem in missing(named)] == [("loss.pairs",)]
    with pytest.raises(WeightsError, match="no such pairs of w and text"):
        fitted_pairs(path, 3, 2)
    save_file({"x": torch.zeros(5, 4, 3), "text": torch.zeros(5, 1, 2)}, path)
    assert not missing(named) and len(fitted_pairs(path, 3, 2).x) == 5
    with pytest.raises(WeightsError, match="pairs of 3 numbers of w and 2 of text, this run has 4 and 2"):
        fitted_pairs(path, 4, 2)
    save_file({"x": torch.zeros(5, 3), "text": torch.zeros(5, 1, 2)}, path)
    with pytest.raises(WeightsError, match="pairs of another version"):
        fitted_pairs(path, 3, 2)
