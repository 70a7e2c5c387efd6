"""Training of CLIP A's text tower alone, so that its features at the end of text hold everything that is said.

Contrastive losses cannot teach an expression as long as neither tower knows it: the gradient at each tower is a product
with what the other one knows. Here a linear layer has to read from the end-of-text features, which condition
generators, what a caption states of every attribute, what it denies and what it leaves open. The picture tower stays as
it is, so its embeddings are computed once. The losses of clip_hard.py keep the texts close to their pictures.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy import ndarray as Array
from torch import Tensor, nn

from dreamportrait.core.files import check_new
from dreamportrait.geometry.images import from_bytes
from dreamportrait.mini.clip_hard import DENIED, hard_contrastive, start_from
from dreamportrait.mini.clip_training import CONFIGS, Compact, evaluate, token_ids
from dreamportrait.miniworld.attributes import ATTRIBUTES
from dreamportrait.miniworld.captions import Told, contradicted, told
from dreamportrait.miniworld.world import World
from dreamportrait.text.clip_scorer import ClipScorer
from dreamportrait.text.compact_clip import build, load, save, tokenizer
from dreamportrait.text.tower import TextTower, at
from dreamportrait.training.loop import cosine, fit, set_lr

STEPS, BATCH, LEARNING_RATE, SEED = 1000, 128, 1e-3, 8
_SIZES = [len(values) + 1 for values in ATTRIBUTES.values()]  # the first class: nothing is said


def train(
    start: Path,  # folder of the CLIP to continue from
    out: Path,
    work: Path,
    world_train: World,
    world_test: World,
    *,
    steps: int = STEPS,
    batch: int = BATCH,
) -> None:
    """Continue the training of the text tower and write config.json and model.safetensors to `out`."""
    check_new(out)
    run(SaidTraining(start, world_train, steps, batch), out, work, world_test, seed=SEED, title="clip-a-said")


def run(training: "SaidTraining", out: Path, work: Path, world_test: World, *, seed: int, title: str) -> None:
    """Run a training, and write the model with its scores on unseen faces."""
    state = {"model": training.model, "head": training.head, "optimizer": training.optimizer}
    fit(training.step, state, training.steps, work, seed=seed, title=title)
    about = {"faces": len(training.world), "steps": training.steps, "batch": training.batch, "seed": seed}
    notes: dict[str, Any] = {"name": "clip-a", "training": about}
    tensors = training.model.state_dict()
    save(tensors, token_ids(), training.config, work / "unscored", notes)
    notes["scores"] = evaluate(work / "unscored", world_test)
    save(tensors, token_ids(), training.config, out, notes)


class SaidTraining:
    """The text tower, the linear layer, their optimiser and the training step."""

    def __init__(self, start: Path, world: World, steps: int, batch: int) -> None:
        self.world, self.steps, self.batch = world, steps, batch
        self.config, self.compact = CONFIGS["a"], Compact()
        torch.manual_seed(SEED)
        self.model = build(self.config, self.compact.unknown + 1)
        self.model.token_embedding.padding_idx = self.compact.unknown
        nn.init.zeros_(self.model.token_embedding.weight[self.compact.unknown])
        before = load(start)
        start_from(self.model, before)
        self.tower, self.head = TextTower(self.model), nn.Linear(self.config.text_width, sum(_SIZES))
        self.seen = embedded(before, world)  # [N, E]
        self.model.visual.requires_grad_(False)
        text = [p for name, p in self.model.named_parameters() if p.requires_grad and name != "logit_scale"]
        self.optimizer = torch.optim.AdamW([*text, *self.head.parameters()], LEARNING_RATE, weight_decay=0.02)

    def step(self, index: int) -> dict[str, Tensor]:
        set_lr(self.optimizer, cosine(index, self.steps, LEARNING_RATE))
        rng = np.random.Generator(np.random.PCG64(int(torch.randint(2**62, ()))))
        chosen = rng.choice(len(self.world), self.batch, replace=False)
        true = self._captions(chosen, rng)
        false = [self._contradicted(caption, rng) for caption in true]
        losses = self._losses(chosen, true, false, self._read([caption.text() for caption in [*true, *false]], rng))
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack([*losses.values()]).sum().backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return losses

    def _captions(self, chosen: Array, rng: np.random.Generator) -> list[Told]:
        """Return a caption of each picture: half of them varied like prompts, half of them evaluation captions."""
        return [told(self.world.attributes[i], rng, DENIED, bool(k % 2)) for k, i in enumerate(chosen)]

    def _contradicted(self, caption: Told, rng: np.random.Generator) -> Told:
        return contradicted(caption, rng)

    def _losses(self, chosen: Array, true: list[Told], false: list[Told], read: "Read") -> dict[str, Tensor]:
        seen, scale = self.seen[torch.from_numpy(chosen)], self.model.logit_scale.exp().detach()
        differ = torch.tensor([self._visibly_differ(*pair) for pair in zip(true, false, strict=True)])
        embedded = (self.tower.project(at(layer, read.end)) for layer in (read.last, read.early))  # each [2 B, E]
        halves = (each.split(len(true)) for each in embedded)
        contrast = [hard_contrastive(seen, right, wrong, differ, scale)[0] for right, wrong in halves]
        heard = self.tower.normalise(at(read.early, read.end))  # [2 B, C] what conditions generators
        said = said_loss(self.head(heard), [*true, *false])
        return {"loss": contrast[0], "early": contrast[1], "said": said, **self._more_losses(read, [*true, *false])}

    def _visibly_differ(self, true: Told, false: Told) -> bool:
        """Return whether the picture tower can tell which of two captions is right."""
        return true != false

    def _more_losses(self, read: "Read", given: list[Told]) -> dict[str, Tensor]:
        """Return losses that a further training adds."""
        return {}

    def _read(self, texts: list[str], rng: np.random.Generator) -> "Read":
        places, end = self.compact.tokenise(texts, rng)
        places = places[:, : int(end.max()) + 1]
        layers = self.tower.layers(places)
        return Read(places, end, layers[-2], layers[-1])


@dataclass(frozen=True)
class Read:
    """What the text tower makes of texts."""

    places: Tensor  # [B, L] token indices
    end: Tensor  # [B] positions of the end of text
    early: Tensor  # [B, L, C] features before the last block
    last: Tensor  # [B, L, C] features after it


def said_loss(logits: Tensor, captions: list[Told]) -> Tensor:  # [B, sum of _SIZES] -> []
    """Return the cross entropy of what captions say of each attribute, summed over attributes.

    The classes of an attribute are: nothing is said, and each of its values. A denied thing has the value "none".
    """
    targets = torch.tensor([[_class(caption, name) for name in ATTRIBUTES] for caption in captions])
    losses = [F.cross_entropy(x, y) for x, y in zip(logits.split(_SIZES, 1), targets.unbind(1), strict=True)]
    return torch.stack(losses).sum()


def _class(caption: Told, name: str) -> int:
    mentioned = name in caption.stated or name in caption.absent
    return 1 + ATTRIBUTES[name].index(caption.face[name]) if mentioned else 0


@torch.no_grad()
def embedded(model: nn.Module, world: World) -> Tensor:
    """Return CLIP's embeddings [N, E] of all pictures of a world."""
    scorer = ClipScorer(model, tokenizer())
    parts = torch.arange(len(world)).split(1000)
    return torch.cat([scorer.image_features(from_bytes(torch.tensor(world.images[part.numpy()]))) for part in parts])
