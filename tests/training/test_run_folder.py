"""Tests of a run's folder: its lock, and checkpoints in it that are no training's state."""

import zipfile
from pathlib import Path

import pytest
import torch

from dreamportrait.training.checkpoints import name_of, newest_checkpoint
from dreamportrait.training.run_folder import CHECKPOINTS, LOCK, claim
from dreamportrait.training.states import save_state

GOOD = {"state_dict": {"x": torch.ones(3)}, "optimizer_states": [], "images": 8, "measured": {}, "callbacks": {}}


def test_one_training_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "one"
    lock = claim(folder)
    with pytest.raises(ValueError, match=r"one is in use: another training writes to it; end that one, or choose"):
        claim(folder)
    claim(tmp_path / "runs" / "two").release()
    lock.release()
    (folder / CHECKPOINTS).mkdir()
    left = folder / CHECKPOINTS / f"{name_of(4)}.unfinished"
    left.touch()
    claim(folder).release()
    assert (folder / LOCK).exists() and not left.exists()


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("/tmp/touched-by-a-pickle"),)  # type: ignore[return-value]


@pytest.mark.parametrize("kind", ["zip", "pickle", "list", "parts", "text"])
def test_the_checkpoint_before_one_that_is_no_state_is_used(tmp_path: Path, kind: str) -> None:
    good, bad = tmp_path / name_of(8), tmp_path / name_of(16)
    save_state(good, GOOD)
    if kind == "zip":
        with zipfile.ZipFile(bad, "w") as file:
            file.writestr("holiday.txt", "sun")
    elif kind == "text":
        bad.write_text("no zip at all")
    else:
        torch.save({"pickle": Evil(), "list": [1], "parts": {"state_dict": {}}}[kind], bad)
    assert newest_checkpoint(tmp_path, set_aside=False) == good and bad.exists()
    expected = "was damaged" if kind == "text" else "is no training's state"
    with pytest.warns(UserWarning, match=f"a checkpoint {expected}, now .*16.ckpt.damaged; continuing from the one"):
        assert newest_checkpoint(tmp_path) == good
    assert not bad.exists() and not Path("/tmp/touched-by-a-pickle").exists()
