"""What can be wrong with weights. All are ValueErrors: the input is at fault, and the message names it."""


class WeightsError(ValueError):
    """A folder of weights, or its content, is not as expected."""


class SnapshotError(WeightsError):
    """A file is no official snapshot, or is damaged."""


class UnsafePickleError(SnapshotError):
    """A pickle asks for something that no official snapshot asks for; it was not done."""


def shown(text: str, limit: int = 100) -> str:
    """Text out of an untrusted file for a message: quoted, shortened, control characters escaped."""
    return ascii(text if len(text) <= limit else text[:limit] + "...")


def listed(items: list[str], limit: int = 6) -> str:
    """The first few of many."""
    rest = len(items) - limit
    return ", ".join(items[:limit]) + (f" and {rest} more" if rest > 0 else "")
