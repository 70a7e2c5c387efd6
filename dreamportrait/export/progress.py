"""How exports that take long say how far they are: to a function, or as a progress bar."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm  # type: ignore[import-untyped]

Report = Callable[[float], None]  # gets the share that is done, 0 .. 1; what it raises ends the export


def silent(share: float) -> None:
    """Report to nobody."""


@contextmanager
def progress_bar(what: str, progress: bool | None) -> Iterator[Report]:
    """Yield a function that moves a bar. progress: None = a bar on terminals only, True = always, False = none."""
    hidden, form = None if progress is None else not progress, "{desc} {percentage:3.0f}% |{bar}| {elapsed}<{remaining}"
    with tqdm(total=100, desc=what, leave=False, disable=hidden, bar_format=form) as bar:
        yield lambda share: bar.update(100 * share - bar.n)
