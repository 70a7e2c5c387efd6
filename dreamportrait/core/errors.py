"""Errors about wrong input, and helpers for their messages. All errors derive from ValueError."""

from collections.abc import Iterator
from contextlib import contextmanager

import click


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


def listed(items: list[str], limit: int = 6) -> str:
    """Join the first `limit` items, and say how many more there are."""
    rest = len(items) - limit
    return ", ".join(items[:limit]) + (f" and {rest} more" if rest > 0 else "")


@contextmanager
def one_message() -> Iterator[None]:
    """Turn a ValueError or OSError into one message on the terminal and exit code 1, without a traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
