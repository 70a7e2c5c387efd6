"""Linear probes: which attributes the features of a small CLIP hold.

    python -m dreamportrait.mini.probe mini/clip-a

Generators hear a prompt through the features at its end of text, so they cannot learn what a linear probe does not find
there. The same is measured for CLIP's embeddings of pictures.
"""

import json
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from dreamportrait.core.errors import one_message
from dreamportrait.core.files import write_text
from dreamportrait.geometry.images import from_bytes
from dreamportrait.mini.oracle import HIDDEN, to_classes
from dreamportrait.miniworld.attributes import ATTRIBUTES, read_code, sample_codes
from dreamportrait.miniworld.captions import Told, told
from dreamportrait.miniworld.grammar import ABSENT
from dreamportrait.miniworld.world import load
from dreamportrait.text import compact_clip
from dreamportrait.text.clip_scorer import ClipScorer
from dreamportrait.text.encoder import TextEncoder
from dreamportrait.text.loading import Clip, load_clip

CAPTIONS, FACES, SEED = 8000, 2000, 9
RIDGE = 1e-3  # relative to the mean variance of the features
NAME = "probe.json"


@torch.no_grad()
def probe(clip: Clip) -> dict[str, dict[str, float]]:
    """Return R^2 of linear probes by attribute: from end-of-text features, and from embeddings of pictures."""
    encoder, scorer = TextEncoder(clip.model, clip.tokenizer), ClipScorer(clip.model, clip.tokenizer)
    rng = np.random.Generator(np.random.PCG64(SEED))
    said = [told(read_code(z)[0], rng, deny=0.25) for z in sample_codes(CAPTIONS, SEED)]
    texts = [caption.text() for caption in said]
    eot = torch.cat([encoder.encode(texts[i : i + 500]).eot for i in range(0, CAPTIONS, 500)])
    stated = {name: explained(eot, torch.tensor([_stated(each, name) for each in said])) for name in ATTRIBUTES}
    denied = {name: explained(eot, torch.tensor([_denied(each, name) for each in said])) for name in ABSENT}
    world = load("test", FACES)
    seen = scorer.image_features(from_bytes(torch.tensor(world.images)))
    classes = to_classes(world.attributes)  # [N, attributes]
    pictures = {name: explained(seen, classes[:, i]) for i, name in enumerate(ATTRIBUTES)}
    return {"end_of_text": stated, "end_of_text_denied": denied, "pictures": pictures}


def _stated(caption: Told, name: str) -> int:
    return ATTRIBUTES[name].index(caption.face[name]) if name in caption.stated else HIDDEN


def _denied(caption: Told, name: str) -> int:
    """Return 1 if the caption denies this thing, 0 if it states it."""
    return 1 if name in caption.absent else 0 if name in caption.stated else HIDDEN


def explained(features: Tensor, classes: Tensor) -> float:  # [N, C], [N], HIDDEN = not to be counted
    """Return R^2 on one half of the samples, by ridge regression of the one-hot classes on the other half."""
    known = classes != HIDDEN
    x, y = features[known].double(), torch.nn.functional.one_hot(classes[known]).double()
    half = len(x) // 2
    x, y = x - x[:half].mean(0), y - y[:half].mean(0)
    gram = x[:half].T @ x[:half]
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    weights = torch.linalg.solve(gram + ridge, x[:half].T @ y[:half])
    rest = (y[half:] - x[half:] @ weights).square().sum() / y[half:].square().sum().clamp(min=1e-9)
    return round(float(1 - rest), 3)


def write(folder: Path) -> None:
    """Probe the CLIP in a folder and write the result into the folder."""
    found = probe(Clip(compact_clip.load(folder), compact_clip.tokenizer()))
    write_text(folder / NAME, json.dumps(found, indent=2) + "\n")


@click.command(help=__doc__)
@click.argument("source")
def main(source: str) -> None:
    with one_message():
        for kind, scores in probe(load_clip(source)).items():
            click.echo(kind + ": " + ", ".join(f"{name} {value:.2f}" for name, value in scores.items()))


if __name__ == "__main__":
    main()
