"""Tests of the splits of the miniature world."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from dreamportrait.data.names import FACES
from dreamportrait.miniworld import world
from dreamportrait.miniworld.attributes import is_held_out, read_code


def test_validation_holds_other_identities(tmp_path: Path) -> None:
    """Its faces must be none of training or test, and have no pair of attributes that is held out."""
    found = {split: world.identities(split, 200) for split in world.SEEDS}
    for split, codes in found.items():
        if split != "validation":
            assert not (codes[:, None, 0] == found["validation"][None, :, 0]).any()
    assert not any(is_held_out(read_code(z)[0]) for z in found["validation"])
    assert len({world.caption_seed(split, 0) for split in world.SEEDS}) == len(world.SEEDS) == 4
    loaded = world.load("validation", 2, tmp_path)
    assert np.array_equal(loaded.codes, found["validation"][:2]) and FACES["validation"] == 2000


def test_the_fingerprint_does_not_know_later_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faces that were rendered before there was a validation split must stay valid."""
    here = Path(world.__file__).parent
    sources = [(here / f"{name}.py").read_bytes() for name in ("attributes", "caster", "heads", "faces")]
    constants = b"({'train': 1, 'test': 2, 'combinations': 3}, 0.5, 0.2, 2.7, 18.837, 64)"
    assert world.fingerprint() == hashlib.sha256(b"".join([*sources, constants])).hexdigest()[:12]
    monkeypatch.setitem(world.SEEDS, "validation", 9)
    assert world.fingerprint() == hashlib.sha256(b"".join([*sources, constants])).hexdigest()[:12]


def test_a_larger_set_that_was_rendered_before_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = world.load("test", 5, tmp_path, workers=1)

    def never(*_: object) -> None:
        raise AssertionError("rendered again")

    monkeypatch.setattr(world, "_render_set", never)
    part = world.load("test", 3, tmp_path)
    assert len(part) == 3 and (part.images == whole.images[:3]).all() and (part.codes == whole.codes[:3]).all()
    with pytest.raises(AssertionError, match="rendered again"):
        world.load("test", 6, tmp_path)
    with pytest.raises(AssertionError, match="rendered again"):
        world.load("validation", 3, tmp_path)
