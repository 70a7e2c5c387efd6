"""Checkpoints: when to write one, how to write it completely or not at all, and how to find the newest."""

import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import LightningModule, Trainer

from dreamportrait.training.every import CountedModule, Every
from dreamportrait.training.run_folder import CHECKPOINTS
from dreamportrait.training.same_weights import check_same_weights
from dreamportrait.training.states import load_state, save_state

PARTS = {"state_dict": dict, "optimizer_states": list, "images": int, "measured": dict, "callbacks": dict}


class Checkpoints(Every):
    """Write checkpoints/images-N.ckpt. Keep the newest `keep`, and those at the end of a stage."""

    def __init__(self, images: int, folder: Path, keep: int) -> None:
        super().__init__(images)
        if keep < 1:
            raise ValueError(f"keep={keep}: at least the newest checkpoint must stay")
        self.folder, self.keep = folder / CHECKPOINTS, keep

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Replace the way Lightning reads and writes checkpoint files, before it reads one."""
        trainer.strategy.checkpoint_io = AtomicFiles()

    def is_due(self, module: CountedModule) -> bool:
        return super().is_due(module) or module.images in module.config.stage_ends()

    def act(self, trainer: Trainer, module: CountedModule) -> None:
        check_same_weights(module, f"after {module.images} images")
        trainer.save_checkpoint(self.folder / name_of(module.images), weights_only=False)
        if trainer.is_global_zero:
            ends = {name_of(end) for end in module.config.stage_ends()}
            for path in saved_checkpoints(self.folder)[: -self.keep]:
                if path.name not in ends:
                    path.unlink()


class AtomicFiles(CheckpointIO):
    """Write checkpoints by way of a temporary file, and read them without unpickling objects."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        save_state(path, checkpoint)
        # Left by a run that was continued from an earlier checkpoint.
        path.with_name(path.name + ".previous").unlink(missing_ok=True)
        for left in path.parent.glob("*.unfinished"):  # left by a run that was killed
            left.unlink()

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        state = load_state(Path(path))
        if state is None:
            raise FileNotFoundError(f"{path} is not there; name a checkpoint of the run's folder, or start a new run")
        return state

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def name_of(images: int) -> str:
    return f"images-{images:09d}.ckpt"


def saved_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, from the oldest to the newest."""
    return sorted(folder.glob("images-*.ckpt"))


def newest_checkpoint(folder: Path, set_aside: bool = True) -> Path | None:
    """Return the newest checkpoint that holds a training's state, or None.

    set_aside: rename others to *.damaged. Only one process may do this.
    """
    for path in reversed(saved_checkpoints(folder)):
        problem = damage(path)
        if problem is None:
            return path
        if set_aside:
            aside = path.with_name(path.name + ".damaged")
            os.replace(path, aside)
            warnings.warn(f"a checkpoint {problem}, now {aside}; continuing from the one before", stacklevel=2)
    return None


def damage(path: Path) -> str | None:
    """Return what is wrong with a checkpoint. None = it holds a training's state. Large tensors are not read twice."""
    try:
        with zipfile.ZipFile(path) as file:
            if file.testzip() is not None:
                return "was damaged"
    except Exception:  # a damaged archive can raise any exception, for example where a name is no UTF-8
        return "was damaged"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # a foreign archive can raise any exception
        return "is no training's state"
    if not isinstance(state, dict) or not all(isinstance(state.get(key), kind) for key, kind in PARTS.items()):
        return "is no training's state"
    return None
