"""A tiny generator and the judge, text encoder and protocol to measure it with."""

from pathlib import Path

import torch
from tiny_training import Pictures, encode, module
from toy_run import write_clip

from dreamportrait.metrics.extractors import ClipExtractor, Judge, load_judge
from dreamportrait.metrics.scores import Protocol, Scores, evaluate
from dreamportrait.systems.dreamportrait.generator import PortraitGenerator, TextTo3D
from dreamportrait.text.encoder import TextFeatures

PROTOCOL = Protocol(count=10, num_candidates=4, batch=4, per_prompt=3, prompts_for_diversity=4)


class Text:
    def encode(self, prompts: list[str]) -> TextFeatures:
        return encode(prompts)


def make_judge(folder: Path) -> Judge:
    if not (folder / "CLIP").exists():
        write_clip(folder / "CLIP")
    return load_judge(str(folder / "CLIP"))


def generator() -> PortraitGenerator:
    """Return a generator with random text weights, so that words change its pictures."""
    made = module().averaged
    torch.manual_seed(3)
    for parameter in made.listeners().parameters():
        torch.nn.init.normal_(parameter)
    return made


def measured(judge: Judge, protocol: Protocol = PROTOCOL, **changes) -> Scores:
    made, text = changes.pop("generator", None), changes.pop("text", None)
    subject = changes.pop("subject", None) or TextTo3D(made or generator(), text or Text())
    given = {"subject": subject, "pictures": Pictures(), "oracle": None} | changes
    return evaluate(judge=judge.scorer, extractor=ClipExtractor(judge), protocol=protocol, **given)
