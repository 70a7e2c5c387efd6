"""The four training stages with their numbers of steps and the folders that they read and write.

WORK/warm-coarse, WORK/warm-fine    regression on views rendered at 32, then at 64
WORK/details                        regression with more weight on small attributes
WORK/mapping                        regression from noise to w
WORK/gan                            adversarial training; writes OUT/{config.json, generator, discriminator}
"""

from pathlib import Path

import torch

from dreamportrait.eg3d.discriminator import DualDiscriminator
from dreamportrait.eg3d.folder import save_generator
from dreamportrait.mini.eg3d import details, gan, mapping, warm
from dreamportrait.mini.eg3d.config import DISCRIMINATOR, GENERATOR
from dreamportrait.mini.eg3d.warm import Student
from dreamportrait.miniworld.world import World
from dreamportrait.training.states import load_state

LICENCE = "Apache-2.0"
COARSE_STEPS, FINE_STEPS = 9_000, 10_000
DETAIL_STEPS, DETAIL_FACES = 6000, 24_000
MAPPING_STEPS = 40_000
GAN = gan.GanPlan(alone=800, steps=1200)


def train_warm(
    work: Path,
    world: World,
    coarse_steps: int = COARSE_STEPS,
    fine_steps: int = FINE_STEPS,
    device: str = "cpu",
) -> None:
    torch.manual_seed(0)
    half = GENERATOR.render_resolution // 2
    student = warm.train(
        work / "warm-coarse", world, Student(GENERATOR).to(device), steps=coarse_steps, resolution=half
    )
    student.requires_grad_(True).train()
    warm.train(work / "warm-fine", world, student, steps=fine_steps, resolution=2 * half, lr=1.5e-3)


def train_details(
    work: Path, world: World, steps: int = DETAIL_STEPS, faces: int = DETAIL_FACES, device: str = "cpu"
) -> None:
    student = _student(work / "warm-fine").to(device)
    student.requires_grad_(True).train()
    others = details.doubles(world, min(faces, len(world)), work / "details")
    details.train(work / "details", world, student, others, steps=steps)


def train_mapping(work: Path, steps: int = MAPPING_STEPS) -> float:
    """Train the mapping network and return R^2 on unseen codes. It always runs on the CPU, which is fast enough."""
    student = _student(work / "details")
    return mapping.train(work / "mapping", student.generator, student.mapper, steps=steps)


def train_gan(out: Path, work: Path, world: World, plan: gan.GanPlan = GAN, device: str = "cpu") -> None:
    student = _student(work / "details").to(device)
    learned = _state(work / "mapping")["mapping"]
    student.generator.backbone.mapping.load_state_dict(learned)
    torch.manual_seed(5)
    discriminator = DualDiscriminator(DISCRIMINATOR).to(device)
    generator = gan.train(work / "gan", world, student, discriminator, plan)
    save_generator(generator, out, licence=LICENCE, discriminator=discriminator, half=True)


def _student(folder: Path) -> Student:
    """Return the running average of the first stage."""
    student = Student(GENERATOR)
    student.load_state_dict(_state(folder)["average"])
    return student


def _state(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    state = load_state(folder / "state.pt")
    if state is None:
        raise ValueError(f"{folder}/state.pt is not there; run the stage before first")
    return state
