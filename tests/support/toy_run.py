"""The files that configs/dreamportrait/test.yaml names (tiny networks, CLIP, pictures) and arguments for train.py."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from places import ROOT
from safetensors.torch import save_file
from tiny_training import DISCRIMINATOR, GENERATOR, SIZE

from dreamportrait.data.writing import Sample, write_dataset
from dreamportrait.eg3d.discriminator import DualDiscriminator
from dreamportrait.eg3d.folder import save_generator
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.geometry.cameras import camera_label, intrinsics_from_fov, official_pose

CONFIG = ROOT / "configs" / "dreamportrait" / "test.yaml"
LICENCE = "of the tests"
CLIP: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": SIZE, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 2},
}


def write_sources(folder: Path) -> Path:
    """Write FACES, PRETRAINED and CLIP into `folder` and return it."""
    torch.manual_seed(1)
    generator, discriminator = TriPlaneGenerator(GENERATOR), DualDiscriminator(DISCRIMINATOR)
    save_generator(generator, folder / "PRETRAINED", licence=LICENCE, discriminator=discriminator)
    write_clip(folder / "CLIP")
    write_faces(folder / "FACES")
    return folder


def write_clip(folder: Path) -> None:
    folder.mkdir(parents=True)
    mean = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CLIP, "preprocess_cfg": mean}))
    torch.manual_seed(2)
    save_file(open_clip.CLIP(**CLIP).state_dict(), folder / "open_clip_model.safetensors")


def write_faces(folder: Path, count: int = 10, size: int = SIZE) -> None:
    rng = np.random.Generator(np.random.PCG64(3))
    cameras = camera_label(official_pose(torch.linspace(1.2, 1.9, count)), intrinsics_from_fov(18.837)).numpy()
    samples = (
        Sample(rng.integers(0, 256, (3, size, size), np.uint8), cameras[i], [f"face {i}", f"a man, {i}"], f"eval {i}")
        for i in range(count)
    )
    write_dataset(folder, samples)


def arguments(sources: Path, runs: Path, *changes: str) -> list[str]:
    """Return the arguments of train.py for a run on these sources."""
    settings = [
        f"run.folder={runs}",
        f"data.path={sources / 'FACES'}",
        f"model.pretrained={sources / 'PRETRAINED'}",
        f"text.clip={sources / 'CLIP'}",
        *changes,
    ]
    return ["--config", str(CONFIG), *(word for setting in settings for word in ("--set", setting))]
