"""Training of the miniature world's CLIPs: A conditions generators, B measures their scores; S and T for styled heads.

They differ in architecture and seed, so that a picture that scores high with one by accident does not score high with
the other. The recipe adds two things to CLIP's. Some pictures are degraded, so that the scores of slightly blurred
generated pictures are meaningful. The features before the last text block, which condition generators, are trained with
the contrastive loss as well.
"""

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamportrait.core.files import check_new
from dreamportrait.core.machine import autocast
from dreamportrait.metrics.r_precision import r_precision
from dreamportrait.mini.augmentation import augment
from dreamportrait.miniworld import styled_captions
from dreamportrait.miniworld.captions import describe, evaluation_caption
from dreamportrait.miniworld.grammar import vocabulary
from dreamportrait.miniworld.styled_world import StyledWorld
from dreamportrait.miniworld.world import World
from dreamportrait.text.clip_scorer import ClipScorer
from dreamportrait.text.compact_clip import CONTEXT_LENGTH, VOCABULARY_SIZE, ClipConfig, build, load, save, tokenizer
from dreamportrait.text.tower import TextTower, at
from dreamportrait.training.loop import cosine, fit, set_lr

STEPS = {"a": 2500, "b": 1800, "s": 800, "t": 300}
BATCH = 128
SEEDS = {"a": 0, "b": 1, "s": 6, "t": 7}
PLAIN, STYLED = ("a", "b"), ("s", "t")
LEARNING_RATE, WEIGHT_DECAY = 1.5e-3, 0.05
UNKNOWN = 0.02  # share of tokens that are replaced by the unknown token
EARLY_WEIGHT = 0.5  # weight of the loss on the features before the last text block
SMALLEST_TEMPERATURE = 0.01


class Compact:
    """Map CLIP's tokens to their indices in token_ids(). All other tokens get one more index, at the end."""

    def __init__(self, styled: bool = False) -> None:
        ids = torch.tensor(token_ids(styled))
        self.unknown = len(ids)
        self.places = torch.full((VOCABULARY_SIZE,), self.unknown)
        self.places[ids] = torch.arange(len(ids))

    def tokenise(self, texts: list[str], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return token indices [B, L], some replaced by the unknown token, and the position of the end of text [B]."""
        tokens = tokenizer()(texts, context_length=CONTEXT_LENGTH)
        end = tokens.argmax(1)
        places = self.places[tokens]
        inside = (torch.arange(CONTEXT_LENGTH) < end[:, None]) & (torch.arange(CONTEXT_LENGTH) > 0)
        places[inside & torch.from_numpy(rng.random(places.shape) < UNKNOWN)] = self.unknown
        return places, end


def train(
    variant: str,  # one of PLAIN
    out: Path,
    work: Path,
    world_train: World,
    world_test: World,
    *,
    steps: int | None = None,  # None = the number for the shipped weights
    batch: int = BATCH,
    device: str = "cpu",
) -> None:
    """Train a CLIP and write config.json and model.safetensors to `out`. A stopped run continues from `work`."""
    if variant not in PLAIN:
        raise ValueError(f"variant={variant!r}: must be one of {', '.join(PLAIN)}")
    check_new(out)
    complete(ClipTraining(variant, world_train, steps, batch, torch.device(device)), out, work, world_test)


def complete(training: "ClipTraining", out: Path, work: Path, world_test: World | StyledWorld) -> None:
    """Run a training, and write the model with its scores on unseen faces."""
    name, seed = f"clip-{training.variant}", SEEDS[training.variant]
    state = {"model": training.model, "optimizer": training.optimizer}
    fit(training.step, state, training.steps, work, seed=seed, title=name)
    notes: dict[str, Any] = {
        "name": name,
        "training": {"faces": len(training.world), "steps": training.steps, "batch": training.batch, "seed": seed},
    }
    weights = training.model.state_dict(), token_ids(training.variant in STYLED), training.config
    save(*weights, work / "unscored", notes)
    notes["scores"] = evaluate(work / "unscored", world_test)
    save(*weights, out, notes)


def evaluate(folder: Path, world: World | StyledWorld) -> dict[str, Any]:
    """Return the scores of a saved model on unseen faces: how often the right one of 100 is found."""
    scorer = ClipScorer(load(folder), tokenizer())
    images = torch.from_numpy(np.array(world.images)).float() / 127.5 - 1
    captions = [world.evaluation_caption(i) for i in range(len(world))]
    with torch.no_grad():
        seen, read = scorer.image_features(images), scorer.text_features(captions)
    candidates = min(100, len(world))
    found, named = r_precision(read, seen, candidates), r_precision(seen, read, candidates)
    return {
        "faces": len(world),
        "candidates": candidates,
        "caption_to_image": round(found.value, 4),
        "image_to_caption": round(named.value, 4),
        "cosine": round(float((seen * read).sum(1).mean()), 4),
    }


class ClipTraining:
    """The model, its optimiser and the training step."""

    def __init__(
        self,
        variant: str,
        world: World | StyledWorld,
        steps: int | None,  # None = the number for the shipped weights
        batch: int,
        device: torch.device,
    ) -> None:
        self.variant, self.world, self.batch, self.device = variant, world, batch, device
        self.steps = STEPS[variant] if steps is None else steps
        self.config = CONFIGS[variant]
        self.compact = Compact(variant in STYLED)
        torch.manual_seed(SEEDS[variant])
        self.model = build(self.config, self.compact.unknown + 1)
        self.model.token_embedding.padding_idx = self.compact.unknown  # it gets no gradient, so it stays zero
        nn.init.zeros_(self.model.token_embedding.weight[self.compact.unknown])
        self.model.to(device, memory_format=torch.channels_last).train()  # with bfloat16, this halves the time on CPUs
        self.tower = TextTower(self.model)
        weights = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [{"params": weights, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98))

    def step(self, index: int) -> dict[str, Tensor]:
        set_lr(self.optimizer, cosine(index, self.steps, LEARNING_RATE))
        images, texts = self._draw(np.random.Generator(np.random.PCG64(int(torch.randint(2**62, ())))))
        seen = self._see(images)
        read, read_early = self._read(*texts)
        scale = self.model.logit_scale.exp()
        loss, early = contrastive(seen, read, scale), contrastive(seen, read_early, scale)
        self.optimizer.zero_grad(set_to_none=True)
        (loss + EARLY_WEIGHT * early).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=-math.log(SMALLEST_TEMPERATURE))
        return {"loss": loss, "early": early, "scale": scale}

    def _draw(self, rng: np.random.Generator) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Draw pictures with new captions."""
        chosen = rng.choice(len(self.world), self.batch, replace=False)
        texts = self.captions(chosen.tolist(), rng)
        return torch.from_numpy(self.world.images[chosen]), self.compact.tokenise(texts, rng)

    def captions(self, chosen: list[int], rng: np.random.Generator) -> list[str]:
        """Return a new caption for each picture: half of them varied like prompts, half of them evaluation captions."""
        assert isinstance(self.world, World)
        faces = [self.world.attributes[i] for i in chosen]
        half = self.batch // 2
        captions = [describe(face, rng) for face in faces[:half]]
        return captions + [evaluation_caption(face, int(rng.integers(2**62))) for face in faces[half:]]

    def varied(self, images: Tensor) -> Tensor:  # [B, 3, R, R]
        """Return the pictures changed in ways that keep their captions true."""
        return augment(images)

    def _see(self, images: Tensor) -> Tensor:  # [B, 3, R, R] uint8 -> [B, E]
        pictures = self.varied(images.to(self.device).float() / 127.5 - 1)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        with autocast(self.device):
            features = self.model.encode_image(pictures)
        return F.normalize(features.float(), dim=1)

    def _read(self, places: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:  # [B, L], [B] -> [B, E] twice
        """Return the final and the early text features.

        Texts are grouped by length and cut to the longest of their group: a third of the time of one full-length batch.
        """
        order = end.argsort()
        last, early = [], []
        for part in order.chunk(4):
            length = int(end[part[-1]]) + 1
            layers = self.tower.layers(places[part, :length].to(self.device))
            last.append(at(layers[-1], end[part].to(self.device)))
            early.append(at(layers[-2], end[part].to(self.device)))
        back = order.argsort().to(self.device)
        return self.tower.project(torch.cat(last)[back]), self.tower.project(torch.cat(early)[back])


def contrastive(seen: Tensor, read: Tensor, scale: Tensor) -> Tensor:  # unit vectors [B, E] -> []
    """Return CLIP's loss: the mean cross entropy of picture to text and text to picture within the batch."""
    logits = scale * seen @ read.T  # [B, B]
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


_RESNET = ClipConfig("resnet", 16, 1, 0, text_width=96, text_layers=3, text_heads=4, embed_dim=128)
_VIT = ClipConfig("vit", 128, 4, 16, text_width=96, text_layers=2, text_heads=4, embed_dim=128)
CONFIGS = {"a": _RESNET, "b": _VIT, "s": _RESNET, "t": _VIT}


@cache
def token_ids(styled: bool = False) -> tuple[int, ...]:
    """Return the ids of all tokens that captions can contain, ascending; the last one is the end of text.

    styled: of captions of styled heads and of instructions.
    """
    known = styled_captions.vocabulary() if styled else vocabulary()
    words = {token for word in known for token in tokenizer().encode(word)}
    return tuple(sorted({*words, tokenizer().sot_token_id, tokenizer().eot_token_id}))
