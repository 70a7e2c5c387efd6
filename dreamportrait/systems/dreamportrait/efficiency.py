"""Measure the time and memory from a prompt to its planes, to a first picture and to each further view (section 4.1).

One prompt is processed at a time, as in interactive use. The planes are the 3D representation: the paper measures "from
the moment a new text prompt was inputted until the generation of a 3D representation".
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dreamportrait.core.timing import peak_megabytes, seconds
from dreamportrait.systems.dreamportrait.generator import PortraitGenerator
from dreamportrait.text.encoder import TextEncoder, TextFeatures

PROMPT = "a young woman with long blond hair and a bright smile"
TEXT, PLANES, IMAGE, VIEW = "text features", "prompt to planes", "prompt to first image", "each further view"


@dataclass(frozen=True)
class Cost:
    """Time and memory of one stage."""

    stage: str
    seconds: float  # median
    fastest: float
    slowest: float
    peak_mb: float  # beyond the memory held before the stage, i.e. the weights


def measure(
    generator: PortraitGenerator, encoder: TextEncoder, device: str, repeats: int, prompt: str = PROMPT
) -> list[Cost]:
    """Return the cost of each stage. The stages are timed in turn, so that other load on the machine affects all."""
    if repeats < 1:
        raise ValueError(f"repeats={repeats}: must be at least 1")
    with torch.inference_mode():
        runs = stages(generator, encoder, prompt)
        for run in (*runs.values(), *runs.values()):  # warm-up: loads libraries and allocates memory
            run()
        memory = {stage: peak_megabytes(run, device) for stage, run in runs.items()}
        rounds = [{stage: seconds(run, device) for stage, run in runs.items()} for _ in range(repeats)]
    return [_cost(stage, [each[stage] for each in rounds], memory[stage]) for stage in runs]


def _cost(stage: str, times: list[float], peak: float) -> Cost:
    return Cost(stage, statistics.median(times), min(times), max(times), peak)


def stages(generator: PortraitGenerator, encoder: TextEncoder, prompt: str) -> dict[str, Callable[[], Tensor]]:
    """Return a function for each stage that runs all work from the prompt on. VIEW only renders planes made before."""
    c, device = generator.config, next(generator.parameters()).device
    z = torch.randn(1, c.z_dim, generator=torch.Generator().manual_seed(0)).to(device)
    front, side = c.around([0.0, 20.0]).to(device).split(1)  # [1, 25] each

    def text() -> TextFeatures:
        return encoder.encode([prompt])

    def planes() -> tuple[Tensor, Tensor]:
        features = text()
        ws = generator.map(z, front, features)
        return ws, generator.synthesize_planes(ws, features)

    def image() -> Tensor:
        ws, made = planes()
        return generator.render(made, front, w=ws).image

    known_ws, known = planes()
    return {
        TEXT: lambda: text().words,
        PLANES: lambda: planes()[1],
        IMAGE: image,
        VIEW: lambda: generator.render(known, side, w=known_ws).image,
    }


def megabytes(module: nn.Module) -> float:
    """Return the size of a module's parameters and buffers."""
    return sum(x.nbytes for x in (*module.parameters(), *module.buffers())) / 2**20
