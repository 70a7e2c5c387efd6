"""Whether a picture, or a w, shows what a text says, learnt from pairs by contrast.

    here        meaning
    code        128 numbers for what is seen in a picture or in the face of a w
    direction   128 numbers for what a text says, followed by the text's offset
    score       code . direction + offset; the softmax over texts is the probability of each to be the caption

The reader of content.py learns what captions say of a picture on average, and is lenient where they say little of it.
The matcher learns what tells pictures apart.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamportrait.core.signals import Signals
from dreamportrait.prior.fitting import HELD, train

CODE = 128


class Matcher(nn.Module):
    """Give codes of what is seen, and scores of codes and texts."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, see: nn.Module, text_width: int, width: int = 384, code: int = CODE) -> None:
        super().__init__()
        self.see = see  # [N, F] -> [N, code]
        self.text = nn.Sequential(
            nn.Linear(text_width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, code + 1),
        )
        self.register_buffer("mean", torch.zeros(code))
        self.register_buffer("deviation", torch.ones(code))

    def code(self, seen: Tensor) -> Tensor:  # [N, F] -> [N, code]
        """Return standardised codes."""
        out: Tensor = (self.see(seen) - self.mean) / self.deviation
        return out

    @torch.no_grad()
    def codes(self, seen: Tensor) -> Tensor:  # [N, F] -> [N, code]
        """Return the standardised codes of many, without gradients."""
        return torch.cat([self.code(part.float()) for part in seen.split(512)])

    @torch.no_grad()
    def standardise(self, seen: Tensor) -> None:  # [N, F]
        """Give the codes of these the mean 0 and the deviation 1."""
        self.mean.zero_()
        self.deviation.fill_(1)
        found = self.codes(seen)
        self.mean.copy_(found.mean(0))
        self.deviation.copy_(found.std(0).clamp(min=1e-6))

    def scores(self, code: Tensor, direction: Tensor) -> Tensor:
        """Return scores [N, M] of codes [N, code] and directions: [M, code + 1], or [N, M, code + 1] for each code."""
        what, offset = direction.split([code.shape[1], 1], -1)
        plain = (code * self.deviation + self.mean)[:, :, None]  # [N, code, 1]
        out: Tensor = (what @ plain / code.shape[1] ** 0.5 + offset)[..., 0]
        return out

    def forward(self, code: Tensor, text: Tensor) -> Tensor:  # [N, code], [M, Ct] standardised -> [N, M]
        """Return the scores of all pairs."""
        return self.scores(code, self.text(text))


def contrast(scores: Tensor) -> Tensor:  # [N, N], the diagonal belongs together
    """Return the cross-entropy of the right text for each picture, and of the right picture for each text."""
    right = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, right) + F.cross_entropy(scores.T, right)) / 2


def fit_matcher(
    matcher: Matcher,
    seen: Tensor,  # [P, M, F]: each picture is seen in M ways
    text: Tensor,  # [P, K, Ct] features of the pictures' captions, standardised
    folder: Path,
    *,
    steps: int,
    batch: int,
    seed: int,
    signals: Signals | None = None,
    **given: Any,  # arguments of what sees, in training
) -> tuple[Matcher, float]:
    """Train a matcher. Return it with its contrast on unseen pictures, in batches of this size."""
    held = max(2, len(text) // HELD)

    def loss() -> Tensor:
        chosen = torch.randint(held, len(text), (batch,))
        shown = seen[chosen, torch.randint(seen.shape[1], (batch,))].float()
        said = text[chosen, torch.randint(text.shape[1], (batch,))].float()
        return contrast(matcher(matcher.see(shown, **given), said))  # not yet standardised

    matcher = train(matcher, loss, folder, steps=steps, seed=seed, title="matching of texts", signals=signals).eval()
    matcher.requires_grad_(False).standardise(seen[held:].flatten(0, 1))
    with torch.no_grad():
        code, said = matcher.codes(seen[:held, 0]), text[:held, 0].float()
        parts = list(zip(code.split(batch), said.split(batch), strict=True))[: max(1, held // batch)]
        return matcher, float(torch.stack([contrast(matcher(*part)) for part in parts]).mean())
