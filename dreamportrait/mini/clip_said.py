"""Training of CLIP A's text tower alone, so that its features at the end of text hold everything that is said.

Contrastive losses cannot teach an expression as long as neither tower knows it: the gradient at each tower is a product
with what the other one knows. Here a linear layer has to read from the end-of-text features, which condition
generators, what a caption states of every attribute, what it denies and what it leaves open. The picture tower stays as
it is, so its embeddings are computed once. The losses of clip_hard.py keep the texts close to their pictures.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
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
    training = SaidTraining(start, world_train, steps, batch)
    state = {"model": training.model, "head": training.head, "optimizer": training.optimizer}
    fit(training.step, state, steps, work, seed=SEED, title="clip-a-said")
    notes: dict[str, Any] = {
        "name": "clip-a",
        "training": {"faces": len(world_train), "said_steps": steps, "batch": batch, "seed": SEED},
    }
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
        true = [told(self.world.attributes[i], rng, DENIED, bool(k % 2)) for k, i in enumerate(chosen)]
        false = [contradicted(caption, rng) for caption in true]
        differ = torch.tensor([a != b for a, b in zip(true, false, strict=True)])
        heard, last, early = self._read([caption.text() for caption in [*true, *false]], rng)
        seen, scale = self.seen[torch.from_numpy(chosen)], self.model.logit_scale.exp().detach()
        pairs = ((features[: self.batch], features[self.batch :]) for features in (last, early))
        contrast = [hard_contrastive(seen, *pair, differ, scale)[0] for pair in pairs]
        said = said_loss(self.head(heard), [*true, *false])
        self.optimizer.zero_grad(set_to_none=True)
        (contrast[0] + contrast[1] + said).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return {"loss": contrast[0], "early": contrast[1], "said": said}

    def _read(self, texts: list[str], rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return end-of-text features [B, C] that condition generators, and the final and early embeddings [B, E]."""
        places, end = self.compact.tokenise(texts, rng)
        layers = self.tower.layers(places[:, : int(end.max()) + 1])
        last, early = at(layers[-1], end), at(layers[-2], end)
        return self.tower.normalise(early), self.tower.project(last), self.tower.project(early)


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
