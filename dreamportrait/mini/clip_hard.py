"""Further training of CLIP A with captions that are false in one attribute, and with captions that say what is absent.

CLIP's loss compares a picture with the captions of other pictures. What tells pictures apart most easily (colours,
hats) is enough to lower it, so the text features hardly hold expressions, age, eye colours and facial hair, and
generators that hear these features cannot learn them. A caption that differs from the true one in one attribute leaves
no other way to tell the two apart.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamportrait.core.files import check_new
from dreamportrait.mini.clip_training import (
    BATCH,
    SMALLEST_TEMPERATURE,
    ClipTraining,
    evaluate,
    token_ids,
)
from dreamportrait.miniworld.captions import contradicted, told
from dreamportrait.miniworld.world import World
from dreamportrait.text.compact_clip import load, save
from dreamportrait.training.loop import cosine, fit, set_lr

STEPS, LEARNING_RATE, SEED = 1400, 8e-4, 5
EARLY_WEIGHT = 1.0  # weight of the losses on the features before the last text block, which condition generators
DENIED = 0.25  # share of captions that say what is absent
_EMBEDDING = "token_embedding.weight"
Texts = tuple[Tensor, Tensor]  # token indices [B, L], positions of the end of text [B]


def train(
    start: Path,  # folder of the CLIP to continue from
    out: Path,
    work: Path,
    world_train: World,
    world_test: World,
    *,
    steps: int = STEPS,
    batch: int = BATCH,
    device: str = "cpu",
) -> None:
    """Continue the training of a CLIP and write config.json and model.safetensors to `out`."""
    check_new(out)
    training = HardTraining(start, world_train, steps, batch, torch.device(device))
    state = {"model": training.model, "optimizer": training.optimizer}
    fit(training.step, state, steps, work, seed=SEED, title="clip-a-hard")
    notes: dict[str, Any] = {
        "name": "clip-a",
        "training": {"faces": len(world_train), "hard_steps": steps, "batch": batch, "seed": SEED},
    }
    save(training.model.state_dict(), token_ids(), training.config, work / "unscored", notes)
    notes["scores"] = evaluate(work / "unscored", world_test)
    save(training.model.state_dict(), token_ids(), training.config, out, notes)


class HardTraining(ClipTraining):
    """The training step with true and false captions."""

    def __init__(self, start: Path, world: World, steps: int, batch: int, device: torch.device) -> None:
        super().__init__("a", world, steps, batch, device)
        start_from(self.model, load(start))

    def step(self, index: int) -> dict[str, Tensor]:
        set_lr(self.optimizer, cosine(index, self.steps, LEARNING_RATE))
        images, (true, false, differ) = self._draw_hard(
            np.random.Generator(np.random.PCG64(int(torch.randint(2**62, ()))))
        )
        seen = self._see(images)
        reads = zip(self._read(*true), self._read(*false), strict=True)  # of the last and of the early features
        scale = self.model.logit_scale.exp()
        (loss, apart), (early, early_apart) = (hard_contrastive(seen, *pair, differ, scale) for pair in reads)
        self.optimizer.zero_grad(set_to_none=True)
        (loss + EARLY_WEIGHT * early).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=-math.log(SMALLEST_TEMPERATURE))
        return {"loss": loss, "early": early, "told_apart": apart, "early_apart": early_apart, "scale": scale}

    def _draw_hard(self, rng: np.random.Generator) -> tuple[Tensor, tuple[Texts, Texts, Tensor]]:
        """Draw pictures [B, 3, R, R], true captions, false ones, and where the two differ [B]."""
        assert isinstance(self.world, World)
        chosen = rng.choice(len(self.world), self.batch, replace=False)
        telling = np.arange(self.batch) % 2 == 1  # half of the captions are like evaluation captions
        true = [
            told(self.world.attributes[i], rng, DENIED, bool(much)) for i, much in zip(chosen, telling, strict=True)
        ]
        false = [contradicted(caption, rng) for caption in true]
        said, wrong = [caption.text() for caption in true], [caption.text() for caption in false]
        differ = torch.tensor([a != b for a, b in zip(said, wrong, strict=True)], device=self.device)
        texts = self.compact.tokenise(said, rng), self.compact.tokenise(wrong, rng)
        return torch.from_numpy(self.world.images[chosen]), (*texts, differ)


@torch.no_grad()
def start_from(model: nn.Module, trained: nn.Module) -> None:
    """Copy the weights of a trained CLIP, and the word embeddings of the tokens that it knows.

    model: its word embedding has a row for each of token_ids(), and one for unknown words.
    """
    tensors = trained.state_dict()
    rows = tensors.pop(_EMBEDDING)[list(token_ids())]
    own = model.get_parameter(_EMBEDDING)
    known = rows.abs().sum(1) > 0
    own[: len(rows)][known] = rows[known].to(own)
    model.load_state_dict(tensors, strict=False)


def hard_contrastive(
    seen: Tensor,  # [B, E] unit vectors, of pictures
    true: Tensor,  # [B, E] of their captions
    false: Tensor,  # [B, E] of the same captions with one attribute changed
    differ: Tensor,  # [B] False where no attribute could be changed
    scale: Tensor,
) -> tuple[Tensor, Tensor]:  # [], []
    """Return the loss, and the share of pictures that are closer to their true caption than to the false one.

    A picture is compared with the true captions and its own false one; a true caption with all pictures.
    """
    target = torch.arange(len(seen), device=seen.device)
    own = (scale * (seen * false).sum(1)).masked_fill(~differ, -math.inf)  # [B]
    logits = scale * seen @ true.T  # [B, B]
    loss = (F.cross_entropy(torch.cat([logits, own[:, None]], 1), target) + F.cross_entropy(logits.T, target)) / 2
    margin = scale * (seen * (true - false)).sum(1)  # [B]
    pairs = (F.softplus(-margin) * differ).sum() / differ.sum().clamp(min=1)
    return loss + pairs, ((margin > 0) & differ).sum() / differ.sum().clamp(min=1)
