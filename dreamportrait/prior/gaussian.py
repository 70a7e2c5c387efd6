"""What a text says of w and what it leaves open: a Gaussian of w for each text.

    here      meaning
    x         coordinates of w, whitened and turned to y
    m, s      mean and standard deviation of each number of y, given a text
    carried   y0 -> m + s y0

Without a text, the numbers of y have the mean 0 and the deviation 1, and do not correlate. Of all turned coordinates, y
are those in which the numbers do not correlate given a text either, as far as possible: there the likelihood of the
pairs is largest. One number then holds the skin, and another one the eyes. s is near 1 where the text says nothing,
and near 0 where it says all.

So `carried` is the shortest way from all w to the w of a text: optimal transport between Gaussians. It leaves what the
text does not mention exactly as the seed has it. It is no answer, because w is not Gaussian: half-way between glasses
and none lie half-transparent glasses. But the flow is drawn to it (flow.py).
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamportrait.core.signals import Signals
from dreamportrait.prior.fitting import HELD, train
from dreamportrait.prior.network import perceptron

FLOOR = 1e-3  # added to the variances of x, in which common differences between faces have length 1
NARROWEST = 5.0  # minus the logarithm of the smallest variance given a text


class TextGaussian(nn.Module):
    mean: Tensor  # [w_dim]
    whiten: Tensor  # [w_dim, w_dim]
    colour: Tensor  # [w_dim, w_dim], undoes `whiten`

    def __init__(self, w_dim: int, text_width: int, width: int = 384, dropout: float = 0.05) -> None:
        super().__init__()
        for name, value in (("mean", torch.zeros(w_dim)), ("whiten", torch.eye(w_dim)), ("colour", torch.eye(w_dim))):
            self.register_buffer(name, value)
        self.angles = nn.Parameter(torch.zeros(w_dim, w_dim))
        self.net = perceptron(text_width, 2 * w_dim, width, dropout)
        for last in self.net[-1].parameters():
            nn.init.zeros_(last)

    @torch.no_grad()
    def fit(self, x: Tensor) -> "TextGaussian":  # [N, w_dim]
        """Set mean and covariance to those of x."""
        self.mean.copy_(x.mean(0))
        variances, directions = torch.linalg.eigh(torch.cov(x.double().T))
        deviations = (variances + FLOOR).sqrt()
        self.whiten.copy_(directions / deviations @ directions.T)
        self.colour.copy_(directions * deviations @ directions.T)
        return self

    def forward(self, text: Tensor) -> tuple[Tensor, Tensor]:  # [N, Ct] standardised -> [N, w_dim] twice
        """Return m and the logarithm of s^2."""
        m, narrowing = self.net(text).chunk(2, 1)
        return m, -F.softplus(narrowing - 3).clamp(max=NARROWEST)  # A text only narrows what there is.

    def turn(self) -> Tensor:  # [w_dim, w_dim]
        """Return the orthogonal matrix from whitened numbers to those of y."""
        upper = self.angles.triu(1)
        turned: Tensor = torch.matrix_exp(upper - upper.T)
        return turned

    def enter(self, x: Tensor) -> Tensor:  # [N, w_dim] -> [N, w_dim]
        """Return y."""
        return (x - self.mean) @ (self.whiten @ self.turn())

    def leave(self, y: Tensor) -> Tensor:  # [N, w_dim] -> [N, w_dim]
        """Return x."""
        return self.mean + y @ (self.turn().T @ self.colour)

    def surprise(self, x: Tensor, text: Tensor) -> Tensor:  # [N, w_dim], [N, Ct] -> []
        """Return minus the mean log-likelihood of a number of y, up to a constant. Without a text it is 0.5."""
        m, log_variance = self(text)
        return ((self.enter(x) - m).square() / log_variance.exp() + log_variance).mean() / 2

    @torch.no_grad()
    def carried(self, x: Tensor, text: Tensor) -> Tensor:  # [N, w_dim], [N, Ct] -> [N, w_dim]
        """Carry w of any kind to w of the text, the shortest way."""
        m, log_variance = self(text)
        return self.leave(m + (log_variance / 2).exp() * self.enter(x))


def fit_gaussian(
    x: Tensor,  # [P, M, w_dim] coordinates of the w of pictures
    text: Tensor,  # [P, K, Ct] features of their captions, standardised
    folder: Path,
    *,
    steps: int,
    batch: int,
    seed: int,
    signals: Signals | None = None,
) -> tuple[TextGaussian, float]:
    """Train the Gaussian of each text. Return it with its surprise at unseen pictures."""
    torch.manual_seed(seed)
    held = max(2, len(x) // HELD)
    made = TextGaussian(x.shape[2], text.shape[2]).fit(x[held:].flatten(0, 1).float())

    def loss() -> Tensor:
        chosen = torch.randint(held, len(x), (batch,))
        drawn = x[chosen, torch.randint(x.shape[1], (batch,))].float()
        return made.surprise(drawn, text[chosen, torch.randint(text.shape[1], (batch,))].float())

    made = train(made, loss, folder, steps=steps, seed=seed, title="what texts leave open", signals=signals).eval()
    with torch.no_grad():
        return made.requires_grad_(False), float(made.surprise(x[:held, 0].float(), text[:held, 0].float()))
