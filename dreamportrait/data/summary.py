"""Counts and ranges of a prepared data set."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from dreamportrait.data.index import SPLITS, Dropped, Entry, read_index, read_preparation

PERCENTILES = (0, 5, 25, 50, 75, 95, 100)


def summarise(path: Path) -> dict[str, Any]:
    """Return what a prepared data set holds, as values for JSON."""
    about, rows = read_preparation(path), read_index(path)
    entries = [row for row in rows if isinstance(row, Entry)]
    dropped = [row for row in rows if isinstance(row, Dropped)]
    turned = np.array([entry.angles for entry in entries])  # [N, 3]
    errors = [entry.error for entry in entries if entry.error is not None]
    captions = [text for entry in entries for text in entry.captions]
    return {
        "pictures": {split: sum(entry.split == split for entry in entries) for split in SPLITS},
        "resolution": about["resolution"],
        "kind": about["kind"],
        "shards": about["shards"],
        "bytes": sum(entry.size for entry in entries),
        "dropped": dict(Counter(row.dropped.split(":")[0] for row in dropped).most_common()),
        "captions_each": _range([len(entry.captions) for entry in entries]),
        "different_captions": len(set(captions)),
        "words": _range([len(text.split()) for text in captions]),
        "yaw": _range(turned[:, 0]),
        "pitch": _range(turned[:, 1]),
        "roll": _range(turned[:, 2]),
        "landmark_error_pixels": _range(np.array(errors) * about["resolution"]) if errors else None,
    }


def _range(values: Any) -> dict[str, float]:
    return {f"{p} %": round(float(v), 2) for p, v in zip(PERCENTILES, np.percentile(values, PERCENTILES), strict=True)}


def as_text(facts: dict[str, Any]) -> str:
    """Return the summary as lines for a terminal."""
    lines = [
        "pictures   " + ", ".join(f"{count} {split}" for split, count in facts["pictures"].items()),
        f"form       {facts['resolution']} x {facts['resolution']} {facts['kind']}, {facts['shards']} shards, "
        f"{facts['bytes'] / 1e6:.1f} MB",
        f"captions   {facts['different_captions']} different ones",
        "dropped    " + (", ".join(f"{n} x {why}" for why, n in facts["dropped"].items()) or "none"),
        "",
        " " * 24 + "".join(f"{f'{p} %':>9}" for p in PERCENTILES),
    ]
    for name in ("yaw", "pitch", "roll", "landmark_error_pixels", "captions_each", "words"):
        if facts[name] is not None:
            lines.append(f"{name.replace('_', ' '):<24}" + "".join(f"{value:9.2f}" for value in facts[name].values()))
    return "\n".join(lines)
