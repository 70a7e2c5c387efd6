"""Run all commands of docs/full-size.md on a CPU, with small stand-ins in place of the downloads.

    python tools/rehearse_full_size.py [FOLDER]

Commands run as the page has them, in an empty FOLDER, apart from these changes:

- Downloads are replaced by random networks and drawn faces in the same files and layouts: an EG3D snapshot as the
  official code pickles it, a folder of Stable Diffusion 2, CLIPs as open_clip reads them, CelebAText-HQ as it is given
  out. The two small face networks are replaced by landmarks that are known.
- lab.yaml is followed by SMALL: few and small steps, no GPU.
- 8 GPUs are 2 processes; 8 machines are 2 launches side by side; 64 GPUs' batch of 256 is one of 8 (CHANGES).
- The launch on 8 GPUs is stopped by SIGTERM after its first checkpoint, and started again.
- Distances use the features of a stand-in CLIP, because the file that defines FID is accepted only as it is.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "full-size.md"
SMALL = """
data: {batch: 8, workers: 0}
model: {conditioning: {token_dim: 8, heads: 2, mapper_blocks: 1, mapper_width: 16}}
optim: {lr_batch: 8}
stages:
  - name: speak
    prior:
      {faces: 40, captions: 2, inverter_steps: 2, content_steps: 2, flow_steps: 2, answers: 64, one_pass_steps: 2,
       batch: 16}
  - {name: adapt, images: 8}
  - {name: align, images: 16, guidance: true}
trainer: {accelerator: cpu, devices: 2, log_every_images: 8, save_every_images: 8, sample_every_images: 24}
samples: {prompts: [a man with a beard], seeds: [0], views: [0]}
"""
LAUNCH = "torchrun --nproc_per_node=8 train.py --config lab.yaml"
CHANGES = (
    ("NODES=8", "NODES=2 GPUS=1"),
    ("--nproc_per_node=8", "--standalone --nproc_per_node=2"),
    ("$HEAD", "127.0.0.1"),
    ("data.batch=256 --set optim.lr_batch=256", "data.batch=8 --set optim.lr_batch=8"),
    ("stages.1.accumulate=8 --set stages.2.accumulate=8", "stages.1.accumulate=2 --set stages.2.accumulate=2"),
    ("--workers 16 --largest-face", "--largest-face --resolution 128 --landmarks downloads/landmarks.jsonl"),
    ("--num-images 1000", "--num-images 4 --num-candidates 2 --batch 4"),
    ("inception:weights/pt_inception-2015-12-05-6726825d.pth", "clip:weights/judge"),
)
PICTURES = 12


class Block(NamedTuple):
    language: str
    text: str


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page."""
    return [Block(*found) for found in re.findall(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)]


def commands(page: str) -> list[str]:
    return [line for block in blocks(page) if block.language == "sh" for line in block.text.splitlines() if line]


def changed(command: str) -> str:
    """Return a command as it is rehearsed."""
    for before, after in CHANGES:
        command = command.replace(before, after)
    return command


def rehearse(folder: Path, say: Callable[[str], None] = print, variables: dict[str, str] | None = None) -> None:
    """Run the page in a folder. Raise SystemExit at the first command that fails.

    variables: the environment of commands. They choose what `python`, `dreamportrait` and `torchrun` are.
    """
    variables = variables or environment()
    page = PAGE.read_text(encoding="utf-8")
    for name in ("configs", "datasets", "eval", "tools", "train.py"):
        (folder / name).symlink_to(ROOT / name)
    (lab,) = [block.text for block in blocks(page) if block.language == "yaml"]
    (folder / "lab.yaml").write_text(merged(lab, SMALL), encoding="utf-8")
    for command in commands(page):
        began = time.monotonic()
        say(f"$ {command}")
        if command.startswith(("curl ", "hf ")):
            stand_in(folder, command)
        elif command == LAUNCH:
            stopped(folder, changed(command), variables)
            run(folder, [changed(command)], variables)
        else:
            machines = 2 if "$NODE_RANK" in command else 1
            together = [changed(command).replace("$NODE_RANK", str(number)) for number in range(machines)]
            run(folder, together, variables)
        say(f"  {time.monotonic() - began:.0f} s")


def merged(first: str, second: str) -> str:
    """Return two YAML texts as one; sections of the second one add to those of the first."""
    import yaml  # type: ignore[import-untyped]

    def merge(a: Any, b: Any) -> Any:
        if not (isinstance(a, dict) and isinstance(b, dict)):
            return b
        return a | {key: merge(a.get(key), value) for key, value in b.items()}

    text: str = yaml.safe_dump(merge(yaml.safe_load(first), yaml.safe_load(second)), sort_keys=False)
    return text


def environment() -> dict[str, str]:
    paths = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    return {
        **os.environ,
        "PATH": os.pathsep.join(paths),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "WANDB_MODE": "offline",
    }


def start(folder: Path, command: str, variables: dict[str, str]) -> subprocess.Popen[str]:
    out = subprocess.PIPE
    return subprocess.Popen(
        shlex.split(command), cwd=folder, env=variables, stdout=out, stderr=subprocess.STDOUT, text=True
    )


def run(folder: Path, together: list[str], variables: dict[str, str]) -> None:
    """Run commands side by side."""
    running = [start(folder, command, variables) for command in together]
    outputs = [process.communicate()[0] for process in running]
    for process, command, output in zip(running, together, outputs, strict=True):
        if process.returncode:
            raise SystemExit(f"{output}\nfailed with {process.returncode}: {command}")


def stopped(folder: Path, command: str, variables: dict[str, str]) -> None:
    """Start a training and stop it by SIGTERM after its first checkpoint."""
    process, checkpoints = start(folder, command, variables), folder / "runs" / "lab" / "checkpoints"
    while not any(checkpoints.glob("*.ckpt")):
        if process.poll() is not None:
            raise SystemExit(f"{process.communicate()[0]}\nended before its first checkpoint: {command}")
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output = process.communicate()[0]
    if process.returncode == 0:
        raise SystemExit(f"{output}\nended before SIGTERM reached it: {command}")
    if (folder / "runs" / "lab" / "portrait").exists():
        raise SystemExit(f"{output}\nwrote a result although it was stopped: {command}")


# Stand-ins.


def stand_in(folder: Path, command: str) -> None:
    """Write what a download command would have fetched."""
    words = shlex.split(command)
    target = folder / words[words.index("-o" if words[0] == "curl" else "--local-dir") + 1]
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.name == "ffhq512-128.pkl":
        write_snapshot(target)
        write_captioned_faces(folder / "downloads")  # given out on request, so the page has no command
    elif target.name == "sd2-base":
        write_diffusion(target)
    elif target.name in ("vit-h-14", "judge"):
        write_clip(target, seed=len(target.name))
    elif target.suffix != ".pth":
        raise SystemExit(f"no stand-in for: {command}")


def write_snapshot(path: Path) -> None:
    import official_pickles as official  # type: ignore[import-not-found]

    from dreamportrait.eg3d.official import generator_from_official

    options = official.arguments("generator_tiny") | {"w_dim": 32}  # a prior needs more renders than w has numbers
    generator = official.official(generator_from_official(options), options)
    name = "discriminator_tiny"
    discriminator = official.official(official.golden(name), official.arguments(name))
    path.write_bytes(official.dumps(official.snapshot(generator, discriminator)))


def write_diffusion(folder: Path) -> None:
    from diffusion_folders import write_own  # type: ignore[import-not-found]

    folder.mkdir()
    write_own(folder)


def write_clip(folder: Path, seed: int) -> None:
    import json

    import open_clip  # type: ignore[import-untyped]
    import torch
    from safetensors.torch import save_file

    sizes: dict[str, Any] = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 3, "width": 16, "head_width": 8, "patch_size": 4},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    }
    folder.mkdir()
    mean = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": sizes, "preprocess_cfg": mean}))
    torch.manual_seed(seed)
    save_file(open_clip.CLIP(**sizes).state_dict(), folder / "open_clip_model.safetensors")


def write_captioned_faces(folder: Path) -> None:
    """Write drawn faces in the layout of CelebAText-HQ, and their landmarks."""
    from stand_ins import found, stand_in  # type: ignore[import-not-found]

    from dreamportrait.data.preparation.landmarks import write_landmarks

    place = folder / "CelebAText-HQ"
    for name in ("CelebAimg", "captions", "data_flist"):
        (place / name).mkdir(parents=True)
    made = [stand_in(f"CelebAimg/{i}.jpg", yaw=3.0 * i - 15, seed=i) for i in range(PICTURES)]
    for i, each in enumerate(made):
        each.picture.save(place / each.file, quality=95)
        lines = [f"a woman with hair number {k} of {i}" for k in range(9)]
        (place / "captions" / f"{i}.txt").write_text("\n".join(lines) + "\n")
    for split, numbers in (("train", range(8)), ("test", range(8, PICTURES))):
        (place / "data_flist" / f"{split}.flist").write_text("".join(f"{i}.jpg\n" for i in numbers))
    write_landmarks(folder / "landmarks.jsonl", [found(each) for each in made])


def main() -> None:
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]  # builders of the stand-ins
    if len(sys.argv) > 1:
        folder = Path(sys.argv[1])
        folder.mkdir(parents=True)
        rehearse(folder.resolve())
    else:
        with tempfile.TemporaryDirectory() as made:
            rehearse(Path(made))


if __name__ == "__main__":
    main()
