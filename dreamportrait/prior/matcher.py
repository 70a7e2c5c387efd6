"""Whether a picture shows what a text says, learnt from the data set's pictures and captions by contrast.

    here        meaning
    code        128 numbers for what is seen in a picture
    direction   128 numbers for what a text says
    score       code . direction + offset of the text; the softmax over texts is the probability of each to be the
                caption of the picture

The reader of content.py learns what captions say of a picture on average, and is lenient where they say little of it.
The matcher learns what tells the pictures apart.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamportrait.core.signals import Signals
from dreamportrait.prior.fitting import HELD, NOISE, train
from dreamportrait.prior.inversion import FeatureMap, Inverter

CODE = 128


class Matcher(nn.Module):
    """Give codes of pictures, and scores of codes and texts."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, maps: tuple[FeatureMap, ...], text_width: int, width: int = 384, code: int = CODE) -> None:
        super().__init__()
        self.picture = Inverter(maps, code)
        self.text = nn.Sequential(
            nn.Linear(text_width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, code + 1),
        )
        self.register_buffer("mean", torch.zeros(code))
        self.register_buffer("deviation", torch.ones(code))

    @torch.no_grad()
    def codes(self, features: Tensor) -> Tensor:  # [N, F] of pictures -> [N, code]
        """Return the standardised codes of pictures."""
        found = torch.cat([self.picture(part.float()) for part in features.split(512)])
        return (found - self.mean) / self.deviation

    @torch.no_grad()
    def standardise(self, features: Tensor) -> None:  # [N, F]
        """Give the codes of these pictures the mean 0 and the deviation 1."""
        self.mean.zero_()
        self.deviation.fill_(1)
        found = self.codes(features)
        self.mean.copy_(found.mean(0))
        self.deviation.copy_(found.std(0).clamp(min=1e-6))

    def forward(self, code: Tensor, text: Tensor) -> Tensor:  # [N, code], [M, Ct] standardised -> [N, M]
        """Return the scores of all pairs."""
        direction, offset = self.text(text).split([code.shape[1], 1], 1)
        scores: Tensor = (code * self.deviation + self.mean) @ direction.T / code.shape[1] ** 0.5 + offset.T
        return scores


def contrast(scores: Tensor) -> Tensor:  # [N, N], the diagonal belongs together
    """Return the cross-entropy of the right text for each picture, and of the right picture for each text."""
    right = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, right) + F.cross_entropy(scores.T, right)) / 2


def fit_matcher(
    maps: tuple[FeatureMap, ...],
    features: Tensor,  # [P, F] of pictures, by these maps
    text: Tensor,  # [P, K, Ct] features of their captions, standardised
    folder: Path,
    *,
    steps: int,
    batch: int,
    seed: int,
    signals: Signals | None = None,
) -> tuple[Matcher, float]:
    """Train the matcher. Return it with its contrast on unseen pictures, in batches of this size."""
    torch.manual_seed(seed)
    held = max(2, len(text) // HELD)
    matcher = Matcher(maps, text.shape[2])
    matcher.picture.standard.fit(features[held:].float())

    def loss() -> Tensor:
        chosen = torch.randint(held, len(text), (batch,))
        said = text[chosen, torch.randint(text.shape[1], (batch,))].float()
        return contrast(matcher(matcher.picture(features[chosen].float(), NOISE), said))

    matcher = train(matcher, loss, folder, steps=steps, seed=seed, title="texts of pictures", signals=signals).eval()
    matcher.requires_grad_(False).standardise(features[held:])
    with torch.no_grad():
        code, said = matcher.codes(features[:held]), text[:held, 0].float()
        parts = list(zip(code.split(batch), said.split(batch), strict=True))[: max(1, held // batch)]
        return matcher, float(torch.stack([contrast(matcher(*part)) for part in parts]).mean())
