"""The scale of losses that keeps gradients in half precision within its range."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

GROWTH_INTERVAL = 2000  # good updates in a row after which the scale doubles
LEAST, MOST = 2.0**-24, 2.0**16


class LossScale:
    """The factor of the loss of one optimiser. An overflow halves it, and many good updates double it.

    Powers of two change no digit of a gradient. The scale starts at 1, as EG3D's networks are trained without one.
    """

    def __init__(self, dynamic: bool) -> None:
        """dynamic: whether the scale changes. Without float16 it stays 1."""
        self.dynamic, self.value = dynamic, 1.0
        self.good = 0  # updates in a row with finite gradients, since the scale changed
        self.skipped, self.in_a_row = 0, 0  # updates that were left out: all of them, and the newest in a row

    def unscale(self, gradients: Sequence[Tensor]) -> None:
        if self.value != 1:
            for gradient in gradients:
                gradient.div_(self.value)

    def adapt(self, finite: bool) -> None:
        """Take note of an update. finite: whether its gradients were; otherwise it was left out."""
        if not self.dynamic:
            return
        if not finite:
            self.value, self.good = max(self.value / 2, LEAST), 0
            self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
            return
        self.good, self.in_a_row = self.good + 1, 0
        if self.good == GROWTH_INTERVAL:
            self.value, self.good = min(self.value * 2, MOST), 0

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("value", "good", "skipped", "in_a_row")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.dynamic:  # a run may be continued in another precision
            self.value = float(state["value"])
            self.good, self.skipped, self.in_a_row = (int(state[name]) for name in ("good", "skipped", "in_a_row"))
