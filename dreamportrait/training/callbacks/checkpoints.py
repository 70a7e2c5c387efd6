"""Checkpoints of Lightning, whole or not there; the same run continues from the newest."""

import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import LightningModule, Trainer

from dreamportrait.training.callbacks.every import Every
from dreamportrait.training.checkpoint import load_state, save_state
from dreamportrait.training.module import DreamPortraitModule
from dreamportrait.training.moment import stage_ends


class Checkpoints(Every):
    """checkpoints/images-N.ckpt. The newest few stay, and those at the end of a stage."""

    def __init__(self, images: int, folder: Path, keep: int) -> None:
        super().__init__(images)
        if keep < 1:
            raise ValueError(f"keep={keep}: at least the newest checkpoint must stay")
        self.folder, self.keep = folder / "checkpoints", keep

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Before Lightning reads a checkpoint."""
        trainer.strategy.checkpoint_io = AtomicFiles()

    def is_due(self, module: DreamPortraitModule) -> bool:
        return super().is_due(module) or module.images in stage_ends(module.config)

    def act(self, trainer: Trainer, module: DreamPortraitModule) -> None:
        trainer.save_checkpoint(self.folder / name_of(module.images), weights_only=False)
        if trainer.is_global_zero:
            ends = {name_of(end) for end in stage_ends(module.config)}
            for path in saved_checkpoints(self.folder)[: -self.keep]:
                if path.name not in ends:
                    path.unlink()


class AtomicFiles(CheckpointIO):
    """Written beside its place, then renamed; read without unpickling objects."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        save_state(path, checkpoint)
        path.with_name(path.name + ".previous").unlink(missing_ok=True)  # of a run that went back
        for left in path.parent.glob("*.unfinished"):  # of a run that was killed
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
    """From the oldest to the newest."""
    return sorted(folder.glob("images-*.ckpt"))


def newest_checkpoint(folder: Path) -> Path | None:
    """That can be read; damaged ones are set aside. None = there is none."""
    for path in reversed(saved_checkpoints(folder)):
        if _is_whole(path):
            return path
        aside = path.with_name(path.name + ".damaged")
        os.replace(path, aside)
        warnings.warn(f"a checkpoint was damaged, now {aside}; continuing from the one before", stacklevel=2)
    return None


def _is_whole(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (zipfile.BadZipFile, OSError):
        return False
