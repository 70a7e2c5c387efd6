"""Steer the flow by what judges see in the face that it is heading for.

Guidance alone trades what is said for what is not: a larger scale shows more of the text, and makes all faces of a text
alike. A judge tells for each single face whether the text is seen in it, and what of the seed's face is left. Both
enter an energy, whose gradient changes the flow's velocity, as classifier guidance does for diffusion models:

    here      meaning
    x, x0     coordinates of the w that the flow is heading for, and of the seed's own
    code(x)   what a judge sees in the face of x (matcher.py)
    p         probability of the text among its rivals: those that say nearly the same, and some of any kind
    S         leaves of a change of x what texts say nothing about (unsaid.py)

    energy = - listen log p(text | code(x)) + keep |code(x) - code(x0)|^2 / 2
    steer = gradient of the energy + stay S (x - x0)

The last term holds what no text asks to change: without it, eyes change their colour in a third of all answers.

A judge that is followed is also deceived: there are w that it is wrong about. So there are two. One learns from
pictures and captions what is seen, and from renders what is seen of a w. The other one learns from pairs of w and text.
What deceives one of them, the other one seldom believes, and the flow has its last steps for itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dreamportrait.prior.flow import Steer
from dreamportrait.prior.matcher import Matcher

WIDTH = 1024  # of the hidden layers of the networks that judge a w
COMMON = 256  # rivals of any kind
NEAR = 100  # rivals that say nearly the same
POOL = 20_000  # texts among which they are sought
SAME = 0.02  # Texts that are nearer than this part of the mean distance say the same, and are no rivals.


@dataclass(frozen=True)
class Judge:
    """Tells codes of w, and scores them."""

    tell: Callable[[Tensor], Tensor]  # coordinates [N, w_dim] -> codes [N, code] of the matcher
    matcher: Matcher


class Steering:
    """What is subtracted from the flow's velocity. The first judge's codes are those that are kept."""

    def __init__(
        self,
        judges: Sequence[Judge],
        texts: Tensor,  # [T, Ct] standardised, from which rivals are drawn
        unsaid: Tensor,  # [w_dim, w_dim], S
        *,
        listen: float,
        keep: float,
        stay: float,
        seed: int,
    ) -> None:
        self.judges, self.listen, self.keep = tuple(judges), listen, keep
        self.pull = stay * unsaid
        order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed))
        common, pool = texts[order[:COMMON]], texts[order[-POOL:]]
        with torch.no_grad():
            self.common = [judge.matcher.text(common) for judge in self.judges]  # each [COMMON, code + 1]
            self.pool = [judge.matcher.text(pool) for judge in self.judges]  # each [POOL, code + 1]

    def towards(self, start: Tensor, text: Tensor) -> Steer:  # [N, w_dim], [N, Ct] standardised
        """Return the function that steers the flow of these seeds and texts."""
        with torch.no_grad():
            near = self._near(text)  # [N, NEAR]
            pairs = zip(self.judges, self.pool, strict=True)
            # For each judge the directions of the text itself and of its near rivals: [N, 1 + NEAR, code + 1].
            asked = [torch.cat([judge.matcher.text(text)[:, None], pool[near]], 1) for judge, pool in pairs]
            before = self.judges[0].tell(start)

        def steer(x: Tensor) -> Tensor:  # [N, w_dim] -> [N, w_dim]
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                (found,) = torch.autograd.grad(self._energy(x, before, asked).sum(), x)
            return found + (x.detach() - start) @ self.pull.T

        return steer

    def _energy(self, x: Tensor, before: Tensor, asked: Sequence[Tensor]) -> Tensor:  # -> [N]
        codes = [judge.tell(x) for judge in self.judges]
        heard = torch.zeros(len(x), device=x.device)
        for judge, code, common, own in zip(self.judges, codes, self.common, asked, strict=True):
            scores = torch.cat([judge.matcher.scores(code, each) for each in (own, common)], 1)
            heard = heard + scores.log_softmax(1)[:, 0] / len(self.judges)
        return self.keep * (codes[0] - before).square().sum(1) / 2 - self.listen * heard

    def _near(self, text: Tensor) -> Tensor:  # [N, Ct] -> [N, NEAR]
        """Return the numbers of the texts of the pool that are nearest, without those that say the same."""
        apart = torch.cdist(self.judges[0].matcher.text(text)[:, :-1], self.pool[0][:, :-1])  # [N, POOL]
        apart = apart.masked_fill(apart < SAME * apart.mean(), torch.inf)
        return apart.topk(min(NEAR, apart.shape[1]), largest=False).indices
