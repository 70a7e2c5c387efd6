"""Make the heads of all methods, prompts and seeds, and measure them. What is there already is not made again.

OUT/study.json                     data set, prompts and settings of each method
OUT/heads/METHOD-seedS/NNNN.safetensors
OUT/results.json                   scores, costs, models and code
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import nn

from dreamportrait import __version__
from dreamportrait.baselines.config import Baselines
from dreamportrait.baselines.heads import VIEWS, Cost, Seen, load, look, save
from dreamportrait.baselines.methods import make_head
from dreamportrait.baselines.names import CLIP_W, LIFTING, METHODS, ONE_PASS, SDS, SDS_W, SJC
from dreamportrait.baselines.scores import Yardstick, measure
from dreamportrait.baselines.sheet import draw
from dreamportrait.baselines.tools import Tools
from dreamportrait.core.files import read_text, write_text
from dreamportrait.core.locks import alone
from dreamportrait.core.machine import git_state, machine
from dreamportrait.core.timing import PeakMemory, finish
from dreamportrait.data.dataset import Pictures
from dreamportrait.geometry.views import Heads

Say = Callable[[str], None]
SETTINGS = {SDS: "sds", SJC: "sjc", SDS_W: "sds_w", CLIP_W: "clip_w", LIFTING: "lifting"}  # sections of the config


@dataclass(frozen=True)
class Study:
    out: Path
    config: Baselines
    dataset: str
    methods: tuple[str, ...]
    prompts: int
    seeds: int

    def jobs(self) -> Iterator["Job"]:
        """Yield all methods for a seed before the next seed, so that early results already compare them."""
        for seed in range(self.seeds):
            for method in self.methods:
                for number in range(self.prompts):
                    yield Job(method, seed, number)


class Job(NamedTuple):
    method: str
    seed: int
    number: int  # of the prompt

    def path(self, out: Path) -> Path:
        return out / "heads" / f"{self.method}-seed{self.seed}" / f"{self.number:04}.safetensors"


def check(study: Study, pictures: Pictures) -> None:
    """Raise ValueError unless the data set is large enough and the folder holds heads of the same settings."""
    if study.prompts < 2:
        raise ValueError(f"--prompts {study.prompts}: must be at least 2, for scores")
    if (needed := 2 * len(VIEWS) * study.prompts) > len(pictures):
        raise ValueError(
            f"--prompts {study.prompts}: {study.dataset} has {len(pictures)} pictures, and {needed} are compared with "
            f"{len(VIEWS)} views of each head; ask for at most {len(pictures) // (2 * len(VIEWS))}"
        )
    path, wanted = study.out / "study.json", about(study)
    if not path.exists():
        return
    found = json.loads(read_text(path))
    for method in (method for method in study.methods if method in found):
        different = sorted(k for k in wanted[method] | found[method] if wanted[method].get(k) != found[method].get(k))
        if different:
            key = different[0]
            raise ValueError(
                f"{path}: heads of {method} were made with {key} {found[method].get(key)!r}, now it is "
                f"{wanted[method].get(key)!r}; set it back, or name another --out"
            )


def about(study: Study) -> dict[str, dict[str, Any]]:
    """Return what decides the heads, by method."""
    c = study.config
    models = {"dataset": study.dataset, "model": c.model, "pretrained": c.pretrained}
    models |= {"diffusion": c.diffusion, "clip": c.clip}
    own = {method: getattr(c, SETTINGS[method]).model_dump(mode="json") for method in SETTINGS}
    return {method: models | own.get(method, {}) for method in study.methods}


def run(
    study: Study,
    pictures: Pictures,
    tools: Tools,
    say: Say = print,
    make: Callable[[Job, str], Heads] | None = None,  # None = make_head
) -> None:
    """Make all heads that are missing."""
    make = make or (lambda job, prompt: make_head(job.method, tools, study.config, prompt, job.seed, job.number))
    taken = f"--out {study.out}: another process is filling it; wait for it, or name another folder"
    with alone(study.out / ".lock", ValueError(taken)):
        check(study, pictures)
        path = study.out / "study.json"
        known = json.loads(read_text(path)) if path.exists() else {}
        write_text(path, json.dumps(known | about(study), indent=1) + "\n")
        cameras = tools.pipe.generator.config.around(VIEWS).to(tools.device)
        jobs = list(study.jobs())
        for done, job in enumerate(jobs, 1):
            if job.path(study.out).exists():
                continue
            prompt = pictures.evaluation_caption(job.number)
            head, cost = timed(lambda job=job, prompt=prompt: make(job, prompt), tools.device)  # type: ignore[misc]
            save(look(head, cameras, cost), job.path(study.out))
            spent = f"{cost.busy:.1f} s, {cost.peak_mb:.0f} MB"
            say(f"[{done}/{len(jobs)}] {job.method}, seed {job.seed}, prompt {job.number}: {spent}")


def timed(make: Callable[[], Heads], device: torch.device) -> tuple[Heads, Cost]:
    """Make a head and return it with what it took."""
    peak, kind = PeakMemory(device.type), device.type
    peak.start()
    finish(kind)
    started, worked = time.perf_counter(), time.process_time()
    head = make()
    finish(kind)
    seconds, busy = time.perf_counter() - started, time.process_time() - worked
    return head, Cost(seconds, seconds if kind == "cuda" else busy, peak.megabytes())


def results(study: Study, yard: Yardstick, tools: Tools) -> dict[str, Any]:
    """Measure all complete methods and seeds."""
    found: list[dict[str, Any]] = []
    for method in METHODS:
        for seed in range(study.seeds):
            heads = heads_of(study, method, seed)
            if heads is not None:
                found.append({"method": method, "seed": seed} | measure(heads, yard).as_dict())
    git = git_state()
    return {
        "dataset": study.dataset,
        "prompts": study.prompts,
        "settings": json.loads(read_text(study.out / "study.json")),
        "weights_mb": {method: weights_mb(method, tools) for method in METHODS},
        "floor": yard.floor,
        "judge": {"clip": yard.judge.source, "sha256": yard.judge.weights},
        "distance": yard.extractor.name,
        "results": found,
        "machine": machine(tools.device.type),
        "code": {"version": __version__, "commit": git.get("commit"), "uncommitted_changes": bool(git.get("changed"))},
    }


def heads_of(study: Study, method: str, seed: int) -> list[Seen] | None:
    """Return the heads of a method and seed, or None if some are missing."""
    paths = [Job(method, seed, number).path(study.out) for number in range(study.prompts)]
    return [load(path) for path in paths] if all(path.exists() for path in paths) else None


def sheet(study: Study, pictures: Pictures, shown: int) -> Image.Image:
    """Draw the heads of the first seed, of the first `shown` prompts."""
    columns = {method: heads_of(study, method, 0) for method in METHODS}
    count = min(shown, study.prompts)
    prompts = [pictures.evaluation_caption(i) for i in range(count)]
    return draw(prompts, {name: heads[:count] for name, heads in columns.items() if heads is not None})


def weights_mb(method: str, tools: Tools) -> float:
    """Return the size of the networks that a method needs, as they are in memory.

    The text tower of the text-to-3D generator stands for that of the diffusion model; in recipes they are the same.
    """
    unet, encoder, vae = tools.prior.unet, tools.prior.vae.encoder, tools.prior.vae
    tower, inverter = tools.pipe.encoder.tower.parts, tools.pipe.inverter or nn.Module()
    parts: dict[str, tuple[nn.Module, ...]] = {
        ONE_PASS: (tools.pipe.generator, tower),
        SDS: (unet, encoder, tower),
        SJC: (unet, encoder, tower),
        SDS_W: (tools.generator, unet, encoder, tower),
        CLIP_W: (tools.generator, tools.scorer.model),
        LIFTING: (tools.pipe.generator, inverter, tools.scorer.model, unet, vae),
    }
    tensors = {id(x): x.nbytes for part in parts[method] for x in (*part.parameters(), *part.buffers())}
    return sum(tensors.values()) / 2**20
