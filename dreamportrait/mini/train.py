"""Train all shipped models of the miniature world: `python -m dreamportrait.mini.train all --work WORK --out OUT`.

`all` trains the models of plain faces. `styles` trains those of styled heads, which start from the mini/diffusion and
the mini/eg3d of the package. When the same command is given again, it continues a stage that was stopped and skips
stages that are done. A stage that is done continues from its state, too, once its number of steps in the code was
raised and WORK/STAGE/done.json and OUT/NAME were removed.

    WORK/world/               rendered faces
    WORK/styled/              rendered styled heads, and triples of an editor
    WORK/STAGE/state/         checkpoints and logs
    WORK/STAGE/result/        the result of the stage, sealed
    WORK/STAGE/done.json      written when the stage is done: its duration and hardware
    OUT/NAME/                 clip-a, clip-b, diffusion, ...: published as soon as their last stage is done
"""

import json
import os
import platform
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from dreamportrait import __version__
from dreamportrait.core.errors import WeightsError, listed, one_message
from dreamportrait.core.files import write_text
from dreamportrait.core.locks import alone
from dreamportrait.mini import cards, style_stages
from dreamportrait.mini.places import FACES, Places
from dreamportrait.weights.registry import LEARNT, MINI, STYLES
from dreamportrait.weights.seals import SEAL, seal, verify

DONE, SECONDS = "done.json", "seconds.json"


# Stages: each function writes its result, if it has one, into the folder `result`. Imports are deferred to the run.


def _world(places: Places, result: Path) -> None:
    for split in FACES:
        places.world(split)


def _clip(variant: str) -> Callable[[Places, Path], None]:
    def run(places: Places, result: Path) -> None:
        from dreamportrait.mini.clip_training import train

        worlds = places.world("train"), places.world("test")
        train(variant, result, places.state(f"clip-{variant}"), *worlds, device=places.device)

    return run


def _clip_hard(places: Places, result: Path) -> None:
    from dreamportrait.mini import clip_hard

    worlds, state = (places.world("train"), places.world("test")), places.state("clip-a-hard")
    clip_hard.train(places.result("clip-a"), result, state, *worlds, device=places.device)


def _clip_said(places: Places, result: Path) -> None:
    from dreamportrait.mini import clip_said

    worlds, state = (places.world("train"), places.world("test")), places.state("clip-a-said")
    clip_said.train(places.result("clip-a-hard"), result, state, *worlds)


def _clip_rare(places: Places, result: Path) -> None:
    from dreamportrait.mini import clip_rare

    worlds, state = (places.world("train"), places.world("test")), places.state("clip-a-rare")
    clip_rare.train(places.result("clip-a-said"), result, state, *worlds)


def _oracle(places: Places, result: Path) -> None:
    from dreamportrait.mini import oracle

    worlds = places.world("train"), places.world("test")
    oracle.train(result, places.state("oracle"), *worlds, device=places.device)


def _vae(places: Places, result: Path) -> None:
    from dreamportrait.mini.diffusion.vae import train_vae

    train_vae(result, places.state("vae"), places.world("train"), device=places.device)


def _unet(places: Places, result: Path) -> None:
    from dreamportrait.mini.diffusion.unet import train_unet
    from dreamportrait.text import compact_clip
    from dreamportrait.text.encoder import TextEncoder

    encoder = TextEncoder(compact_clip.load(places.result("clip-a-said")), compact_clip.tokenizer())
    shutil.copytree(places.result("vae") / "vae", result / "vae")
    world, state = places.world("train"), places.state("unet")
    train_unet(result, state, world, lambda prompts: encoder.encode(prompts, shorten=False).words, device=places.device)


def _eg3d_warm(places: Places, result: Path) -> None:
    from dreamportrait.mini.eg3d.stages import train_warm

    train_warm(places.work / "eg3d", places.world("train"), device=places.device)


def _eg3d_details(places: Places, result: Path) -> None:
    from dreamportrait.mini.eg3d.stages import train_details

    train_details(places.work / "eg3d", places.world("train"), device=places.device)


def _eg3d_map(places: Places, result: Path) -> None:
    from dreamportrait.mini.eg3d.stages import train_mapping

    train_mapping(places.work / "eg3d")


def _eg3d_gan(places: Places, result: Path) -> None:
    from dreamportrait.mini.eg3d.stages import train_gan

    train_gan(result, places.work / "eg3d", places.world("train"), device=places.device)


@dataclass(frozen=True)
class Stage:
    run: Callable[[Places, Path], None]
    cpu: float  # minutes on two cores
    gpu: float  # minutes on one GPU
    needs: tuple[str, ...] = ()
    part: str | None = None  # the folder of OUT that this stage contributes to. None = no folder
    publishes: bool = False  # True = its result becomes that folder
    styled: bool = False  # whether it is of the models of styled heads


# In the order in which they run. CPU minutes were measured on one core, eg3d-* while other jobs ran on the machine. GPU
# minutes are estimates.
STAGES = {
    "world": Stage(_world, 2, 2),
    "clip-a": Stage(_clip("a"), 13, 2, (), "clip-a"),
    "oracle": Stage(_oracle, 6, 1, (), "oracle", True),
    "vae": Stage(_vae, 28, 4, (), "diffusion"),
    "eg3d-warm": Stage(_eg3d_warm, 101, 10, (), "eg3d"),
    "eg3d-details": Stage(_eg3d_details, 45, 5, ("eg3d-warm",), "eg3d"),
    "eg3d-map": Stage(_eg3d_map, 8, 5, ("eg3d-details",), "eg3d"),
    "clip-a-hard": Stage(_clip_hard, 25, 3, ("clip-a",), "clip-a"),
    "clip-a-said": Stage(_clip_said, 10, 3, ("clip-a-hard",), "clip-a"),
    "clip-a-rare": Stage(_clip_rare, 10, 3, ("clip-a-said",), "clip-a", True),
    "unet": Stage(_unet, 29, 4, ("vae", "clip-a-said"), "diffusion", True),
    "clip-b": Stage(_clip("b"), 9, 2, (), "clip-b", True),
    "eg3d-gan": Stage(_eg3d_gan, 11, 1, ("eg3d-map",), "eg3d", True),
    # Models of styled heads. Minutes were measured on one core without bfloat16, while other jobs ran on the machine.
    # ip2p, style-oracle and i2t-any: one thread of a core with bfloat16; styled-world is estimated. The schedules of
    # diffusion-styles and clip-t are short: they become better with more steps.
    "styled-world": Stage(style_stages.world, 15, 15, styled=True),
    "clip-s": Stage(style_stages.clip("s"), 17, 2, (), "clip-s", True, styled=True),
    "vae-styles": Stage(style_stages.vae, 20, 3, (), "diffusion-styles", styled=True),
    "unet-styles": Stage(style_stages.unet, 10, 2, ("vae-styles", "clip-s"), "diffusion-styles", True, styled=True),
    "ip2p": Stage(style_stages.ip2p, 55, 4, ("vae-styles", "clip-s"), "ip2p", True, styled=True),
    "style-oracle": Stage(style_stages.oracle, 8, 1, (), "style-oracle", True, styled=True),
    "i2t-base": Stage(style_stages.i2t, 45, 5, (), "i2t-base", True, styled=True),
    "i2t-any": Stage(style_stages.i2t_any, 47, 4, ("i2t-base", "ip2p"), "i2t-any", True, styled=True),
    "learnt-styles": Stage(style_stages.learnt_styles, 17, 5, ("i2t-base", "ip2p"), LEARNT, True, styled=True),
    "clip-t": Stage(style_stages.clip("t"), 6, 2, (), "clip-t", True, styled=True),
}
PLAIN = tuple(name for name, stage in STAGES.items() if not stage.styled)
STYLED = tuple(name for name, stage in STAGES.items() if stage.styled)
# The last stages work on the published folders: scores of the models together, then model cards and seals.
LAST = ("scores", "cards", "style-scores", "style-cards")


def run_stages(names: list[str], places: Places) -> None:
    """Run the stages in the given order. Before the first one, check that every folder of OUT may be written."""
    for name in names:
        if name not in LAST:
            _check_free(name, places)
    for name in names:
        if name in LAST:
            _finish(name, places)
        elif is_done(name, places):
            print(f"{name}: done before", flush=True)
        else:
            _check_needs(name, places)
            _run(name, places)
        if name not in LAST and STAGES[name].publishes:
            _publish(name, places)


def _finish(name: str, places: Places) -> None:
    if name == "scores":
        from dreamportrait.mini import scores

        scores.write(places.out, places.world("test"), places.world("train"))
    elif name == "style-scores":
        from dreamportrait.mini import style_scores

        style_scores.write(places.out, places.styled_world("validation"), places.triples("validation"))
    else:
        cards.write_all(places.out, MINI if name == "cards" else (*STYLES, LEARNT))


def is_done(name: str, places: Places) -> bool:
    """Return True if the stage is done, after verifying the seal of its result."""
    if not (places.work / name / DONE).exists():
        return False
    if (result := places.result(name)).exists():
        verify(result)
    return True


def _run(name: str, places: Places) -> None:
    folder, result = places.work / name, places.result(name)
    folder.mkdir(parents=True, exist_ok=True)
    taken = WeightsError(f"{folder} is in use: another process trains this stage; wait for it or end it")
    with alone(folder / "lock", taken), clock(folder / SECONDS):
        shutil.rmtree(result, ignore_errors=True)  # left by a run that was stopped while writing it
        print(f"{name}: about {STAGES[name].cpu:.0f} min on two cores, {STAGES[name].gpu:.0f} min on a GPU", flush=True)
        STAGES[name].run(places, result)
    if result.exists():
        seal(result)
    facts = {
        "stage": name,
        "command": f"python -m dreamportrait.mini.train {name}",
        "seconds": _read(folder / SECONDS)["seconds"],
        "hardware": hardware(places.device),
        "code_version": __version__,
    }
    _write(folder / DONE, facts)


def _check_needs(name: str, places: Places) -> None:
    if missing := [need for need in STAGES[name].needs if not is_done(need, places)]:
        raise WeightsError(f"stage {name} needs {listed(missing)}, not done in {places.work}; run {missing[0]} first")


def _check_free(name: str, places: Places) -> None:
    """Raise WeightsError if this stage would publish to an existing folder that it did not publish itself."""
    stage = STAGES[name]
    if not stage.publishes:
        return
    target = places.out / str(stage.part)
    if target.exists() and not (is_done(name, places) and _is_published(places.result(name), target)):
        raise WeightsError(f"{target} exists and was not made from {places.work}; name another OUT, or remove it")


def _is_published(result: Path, target: Path) -> bool:
    made = [path for path in result.rglob("*") if path.is_file() and path.name != SEAL]
    copies = [target / path.relative_to(result) for path in made]
    return all(
        copy.is_file() and copy.read_bytes() == path.read_bytes() for path, copy in zip(made, copies, strict=True)
    )


def _publish(name: str, places: Places) -> None:
    """Copy a result to OUT together with training.json. The stage `cards` seals the folder later."""
    stage, result = STAGES[name], places.result(name)
    target = places.out / str(stage.part)
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    shutil.copytree(result, unfinished)  # with the seals of folders within it
    (unfinished / SEAL).unlink()
    parts = [other for other in STAGES if STAGES[other].part == stage.part]
    _write(unfinished / cards.TRAINING, {"stages": [_read(places.work / part / DONE) for part in parts]})
    os.replace(unfinished, target)


# Time and hardware.


@contextmanager
def clock(path: Path) -> Iterator[None]:
    """Measure the seconds of a stage and add them to those of its earlier, stopped runs."""
    before = _read(path)["seconds"] if path.exists() else 0
    start = time.monotonic()
    try:
        yield
    finally:
        _write(path, {"seconds": round(before + time.monotonic() - start)})


def hardware(device: str) -> str:
    import torch

    if device == "cpu":
        return f"{torch.get_num_threads()} threads, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    return torch.cuda.get_device_name(device)


def estimates() -> str:
    """Return a table of the minutes that each stage takes."""
    rows = [(name, stage.cpu, stage.gpu) for name, stage in STAGES.items()]
    for title, names in (("all", PLAIN), ("styles", STYLED)):
        stages = [STAGES[name] for name in names]
        rows.append((title, sum(stage.cpu for stage in stages), sum(stage.gpu for stage in stages)))
    lines = [f"{name:12} {cpu:6.0f} min {gpu:6.0f} min" for name, cpu, gpu in rows]
    return "\n".join([f"{'stage':12} {'two cores':>10} {'one GPU':>10}", *lines])


def _read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def _write(path: Path, values: dict[str, Any]) -> None:
    write_text(path, json.dumps(values, indent=2) + "\n")


@click.command()
@click.argument("stage", type=click.Choice([*STAGES, *LAST, "all", "styles"]))
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Checkpoints, logs, rendered faces.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folders of finished weights.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
def main(stage: str, work: Path, out: Path, device: str) -> None:
    """Train a STAGE of the miniature world, or all of them in order."""
    names = {"all": [*PLAIN, *LAST[:2]], "styles": [*STYLED, *LAST[2:]]}.get(stage, [stage])
    print(estimates(), flush=True)
    with one_message():
        from dreamportrait.core.machine import find_device

        run_stages(names, Places(work, out, find_device(device)))


if __name__ == "__main__":
    main()
