"""Measure how long each part of a training step takes, in the real step."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from torch import Tensor

from dreamportrait.core.timing import finish
from dreamportrait.systems.dreamportrait import step as training
from dreamportrait.systems.dreamportrait.step import DreamPortraitModule

REST = "rest"
# Loss that was noted last before a backward pass -> name of the part that the backward pass counts for.
BACKWARD = {
    "generator": "backward, generator's loss",
    "density": "backward, generator's loss",
    "discriminator": "backward, discriminator's loss",
    "r1": "R1",
}


class Clock:
    """Measure the seconds of each part. Time in a nested part counts only for the nested part."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self._open = [REST]
        self._since = time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.turn()
        self._open.append(name)
        try:
            yield
        finally:
            self.turn()
            self._open.pop()

    def turn(self) -> None:
        """Add the time since the last call to the part that is running."""
        finish(self.device)
        now = time.perf_counter()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def restart(self) -> None:
        finish(self.device)
        self.seconds.clear()
        self._since = time.perf_counter()

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with a clock around it."""

        def timed(*arguments: Any, **options: Any) -> Any:
            with self.part(name):
                return function(*arguments, **options)

        return timed


@contextmanager
def watched(module: DreamPortraitModule, clock: Clock) -> Iterator[None]:
    """Measure the parts of the module's steps within the context, under the names that the table shows."""
    portrait, noted, backward = module.generator, [""], Tensor.backward
    parts: list[tuple[Any, str, str]] = [
        (portrait, "map", "mapping"),
        (portrait, "synthesize_planes", "backbone"),
        (portrait, "render", "rendering"),
        (portrait.generator.superresolution, "forward", "super-resolution"),
        (module, "judge_fake", "discriminator"),
        (module, "judge_real", "discriminator"),
        (module, "r1_at_real", "R1"),
        (training, "density_regularization", "density regularisation"),
        (module, "update", "optimisers"),
        (module, "follow_centre", "averages"),
        (module.average, "update", "averages"),
    ]

    def note(name: str, loss: Tensor) -> Tensor:
        noted[0] = name
        return own_note(name, loss)

    def timed_backward(loss: Tensor, *arguments: Any, **options: Any) -> None:
        with clock.part(BACKWARD[noted[0]]):
            backward(loss, *arguments, **options)

    own_note = module.note
    with ExitStack() as stack:
        for owner, method, name in parts:
            timed = clock.around(name, getattr(owner, method))
            stack.enter_context(mock.patch.object(owner, method, timed))
        stack.enter_context(mock.patch.object(module, "note", note))
        stack.enter_context(mock.patch.object(Tensor, "backward", timed_backward))
        yield
