"""The names of the methods. methods.py says what they are."""

ONE_PASS, SDS, SJC, SDS_W, CLIP_W, LIFTING = "one-pass", "sds", "sjc", "sds-w", "clip-w", "lifting"
METHODS = (ONE_PASS, SDS, SJC, SDS_W, CLIP_W, LIFTING)


def choose(names: str | None) -> tuple[str, ...]:
    """Return the methods of a comma-separated list, in the usual order. None = all."""
    if names is None:
        return METHODS
    given = [name.strip() for name in names.split(",")]
    if unknown := [name for name in given if name not in METHODS]:
        raise ValueError(f"--methods {names}: no method {unknown[0]!r}; must be some of {','.join(METHODS)}")
    return tuple(name for name in METHODS if name in given)
