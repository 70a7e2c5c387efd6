"""Errors about wrong input, and helpers for their messages. All errors derive from ValueError."""

from collections.abc import Iterator
from contextlib import contextmanager


class WeightsError(ValueError):
    """A folder of weights or a file in it is not as expected."""


class SnapshotError(WeightsError):
    """A file is not an official snapshot, or is damaged."""


class UnsafePickleError(SnapshotError):
    """A pickle requests something that no official snapshot requests. Nothing was executed."""


class DataError(ValueError):
    """A data set, or something in it, is not as expected."""


class NonFiniteLoss(RuntimeError):
    """The error for a loss that became NaN or infinite. The checkpoint on disk was saved before that."""


def shown(text: str, limit: int = 100) -> str:
    """Return text from an untrusted file in a form for messages: quoted, shortened, control characters escaped."""
    return ascii(text if len(text) <= limit else text[:limit] + "...")


def brief(value: object, limit: int = 100) -> str:
    """Return the representation of a value from an untrusted file in a form for messages."""
    return shown(repr(value), limit)[1:-1]


def listed(items: list[str], limit: int = 6) -> str:
    """Join the first `limit` items, and say how many more there are."""
    rest = len(items) - limit
    return ", ".join(items[:limit]) + (f" and {rest} more" if rest > 0 else "")


def first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]


@contextmanager
def one_message() -> Iterator[None]:
    """Turn an error about input or files into one message on the terminal and exit code 1, without a traceback."""
    try:
        yield
    except (ValueError, OSError, NonFiniteLoss) as error:
        import click  # only commands need it; the benchmarks of the ops run without

        raise click.ClickException(str(error)) from error
