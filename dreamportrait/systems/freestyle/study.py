"""Make and measure the rows of the paper's tables: each style on some generated faces, with several seeds.

OUT/study.json                     sizes, settings and models of the study
OUT/sets/STYLE-FACE/               the few-shot set that rows share, and OUT/sets/STYLE-FACE.seconds
OUT/results/ROW-STYLE-FACE.json    scores and seconds
OUT/heads/ROW-STYLE-FACE.safetensors    pictures of the head from all views
OUT/tunings/                       unfinished tunings, removed when they are done

What has a result is not made again. The rows of a face share its edited views; the time of a single edit is the time of
its set divided by the number of views.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamportrait.core.files import read_text, replacing, write_text
from dreamportrait.core.locks import alone
from dreamportrait.eg3d.planes import Planes
from dreamportrait.geometry.images import as_saved, from_bytes
from dreamportrait.guidance.stable_diffusion import StableDiffusion
from dreamportrait.miniworld.grammar import an
from dreamportrait.miniworld.styles import style as style_of
from dreamportrait.systems.freestyle import study_rows as rows
from dreamportrait.systems.freestyle.baselines import PlaneLayers, dreamfusion, gan_inversion, hfgi3d
from dreamportrait.systems.freestyle.evaluation import between_edits, cameras_of, measure, style_accuracy
from dreamportrait.systems.freestyle.fewshot import FewShot, FewShotSettings, build, draw_heads
from dreamportrait.systems.freestyle.generator import PictureTo3D
from dreamportrait.systems.freestyle.instruct import InstructPix2Pix
from dreamportrait.systems.freestyle.judges import Judges
from dreamportrait.systems.freestyle.network import ImageToTriplane
from dreamportrait.systems.freestyle.perceptual import Perceptual
from dreamportrait.systems.freestyle.tuning import TuneSettings, tune_network
from dreamportrait.weights.hashing import weights_hash

FIRST_FACE = 2_000_000  # seed of the first face; no other measurement uses these
Say = Callable[[str], None]


@dataclass(frozen=True)
class Steps:
    """Lengths of the stand-ins."""

    dreamfusion: int = 400
    inversion: int = 200
    backbone: int = 150


@dataclass(frozen=True)
class Study:
    out: Path
    rows: tuple[str, ...]
    styles: tuple[str, ...]  # names of styles of the miniature world
    faces: int  # of each style and seed
    seeds: int
    few_shot: FewShotSettings  # of one face
    tuning: TuneSettings
    steps: Steps = Steps()

    def jobs(self) -> Iterator["Job"]:
        """Yield all rows of a face before the next face, and all of a seed before the next seed."""
        for seed in range(self.seeds):
            for style in self.styles:
                for face in range(self.faces):
                    for row in self.rows:
                        yield Job(row, style, face, seed)


class Job(NamedTuple):
    row: str
    style: str
    face: int
    seed: int

    @property
    def face_seed(self) -> int:
        return FIRST_FACE + 1000 * self.seed + self.face

    @property
    def place(self) -> str:
        return f"{self.style.replace(' ', '-')}-{self.face_seed}"

    @property
    def name(self) -> str:
        return f"{self.row}-{self.place}"


@dataclass(frozen=True)
class Tools:
    """The models of a study. A row whose model is missing is left out."""

    base: PictureTo3D
    editor: InstructPix2Pix
    judges: Judges
    perceptual: Perceptual | None = None
    prior: StableDiffusion | None = None  # of DreamFusion
    vector: PictureTo3D | None = None  # H with a code of 1 x 1, pretrained alike

    def lacks(self, row: str) -> bool:
        return (row == rows.DREAMFUSION and self.prior is None) or (row == rows.VECTOR and self.vector is None)


def run(study: Study, tools: Tools, say: Say = print) -> None:
    """Make and measure everything that has no result yet."""
    taken = ValueError(f"--out {study.out}: another process is filling it; wait for it, or name another folder")
    with alone(study.out / ".lock", taken):
        check(study, tools)
        jobs = [job for job in study.jobs() if not tools.lacks(job.row)]
        for number, job in enumerate(jobs, 1):
            path = result_path(study.out, job)
            if path.exists():
                continue
            data, spent = shared_set(study, tools, job)
            found = edited(study, tools, job) if job.row in rows.EDITS else styled(study, tools, job, data, spent)
            write_text(path, json.dumps(job._asdict() | {"scores": found}, indent=1, allow_nan=False) + "\n")
            shown = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
            say(f"[{number}/{len(jobs)}] {job.row}, {job.style}, face {job.face}, seed {job.seed}: {shown}")


def result_path(out: Path, job: Job) -> Path:
    return out / "results" / f"{job.name}.json"


def head_path(out: Path, job: Job) -> Path:
    return out / "heads" / f"{job.name}.safetensors"


def about(study: Study, tools: Tools) -> dict[str, Any]:
    """Return what decides the results, as JSON."""
    networks: dict[str, torch.nn.Module | None] = {"network": tools.base.i2t, "editor": tools.editor.unet}
    networks |= {"prior": tools.prior.unet if tools.prior else None}
    networks |= {"vector": tools.vector.i2t if tools.vector else None}
    hashes = {name: None if network is None else weights_hash(network) for name, network in networks.items()}
    settings = {"few_shot": asdict(study.few_shot), "tuning": asdict(study.tuning), "steps": asdict(study.steps)}
    found: dict[str, Any] = json.loads(json.dumps(settings | {"weights": hashes}))
    return found


def check(study: Study, tools: Tools) -> None:
    """Record what the study is of. Raise ValueError if the folder holds results of another one."""
    for name in study.styles:
        style_of(name)
    path, wanted = study.out / "study.json", about(study, tools)
    if not path.exists():
        write_text(path, json.dumps(wanted, indent=1) + "\n")
        return
    found = json.loads(read_text(path))
    for section in wanted:
        for key in sorted(wanted[section] | found.get(section, {})):
            was, now = found.get(section, {}).get(key), wanted[section].get(key)
            if was != now and None not in (was, now):
                raise ValueError(
                    f"{path}: {section}.{key} was {was!r}, now it is {now!r}; set it back, or name another --out"
                )
    for key, value in wanted["weights"].items():  # a model that was missing before
        found["weights"][key] = value or found["weights"].get(key)
    write_text(path, json.dumps(found, indent=1) + "\n")


# ----- One job --------------------------------------------------------------------------------------------


def shared_set(study: Study, tools: Tools, job: Job) -> tuple[FewShot, float]:
    """Return the few-shot set of a style and a face, and the seconds that it took."""
    folder = study.out / "sets" / job.place
    timed, how = folder.with_name(f"{job.place}.seconds"), replace(study.few_shot, identities=1, seed=job.face_seed)
    if not timed.exists():  # a part of an interrupted set would falsify its time
        for left in (folder, folder.with_name(f"{folder.name}.unfinished")):
            shutil.rmtree(left, ignore_errors=True)
    began = time.perf_counter()
    data = build(tools.base.generator, tools.editor, [an(job.style)], how, folder)
    if not timed.exists():
        write_text(timed, f"{time.perf_counter() - began:.3f}\n")
    return data, float(read_text(timed))


def styled(study: Study, tools: Tools, job: Job, data: FewShot, spent: float) -> dict[str, float]:
    """Make and measure the head of a row. spent: seconds of the few-shot set."""
    one_edit = spent / len(data.cameras)
    began = time.perf_counter()
    head = make_head(study, tools, job, data)
    seconds = time.perf_counter() - began
    if job.row in (rows.INVERSION, rows.HFGI3D):
        seconds += one_edit
    elif job.row != rows.DREAMFUSION:
        seconds += spent
    generator, words = tools.base.generator, an(job.style)
    source = draw_heads(generator, [job.face_seed], study.few_shot.truncation)
    front = source.view(generator.config.around([0.0]).to(source.planes.device)).image.detach().clamp(-1, 1)
    found = measure(head, front, words, style_of(job.style), tools.judges.reader, tools.judges.scorer)
    keep_pictures(head, head_path(study.out, job))
    return found.as_dict() | {"seconds": seconds}


def make_head(study: Study, tools: Tools, job: Job, data: FewShot) -> Planes:
    """Make the head of a row for one style and face."""
    base, how, steps = tools.base, study.few_shot, study.steps
    generator, edited_front = base.generator, data.fronts.to(next(base.generator.parameters()).device)
    reach: dict[str, Any] = {"yaw": how.yaw, "pitch": how.pitch}
    given: dict[str, Any] = {"seed": job.face_seed, "perceptual": tools.perceptual}
    if job.row == rows.DREAMFUSION:
        assert tools.prior is not None  # see Tools.lacks
        planes = base.i2t.mean_planes, base.i2t.deviation
        words, seed = an(job.style), job.face_seed
        return dreamfusion(generator, *planes, tools.prior, words, **reach, steps=steps.dreamfusion, seed=seed)
    if job.row == rows.INVERSION:
        return gan_inversion(generator, edited_front, steps=steps.inversion, **given)
    if job.row == rows.HFGI3D:
        sizes: dict[str, Any] = {"steps": steps.inversion, "tuning_steps": steps.backbone}
        return hfgi3d(generator, edited_front, **reach, **sizes, **given)
    return tuned_head(study, tools, job, data, edited_front)


def tuned_head(study: Study, tools: Tools, job: Job, data: FewShot, front: Tensor) -> Planes:
    """Tune a network to the face's edited views as the paper does, and return the head of the edited front."""
    settings = replace(study.tuning, train="all", input="edited", seed=job.face_seed)
    base, network = tools.base, start_of(job, tools, study.few_shot.truncation)
    if job.row == rows.ROUGH:
        settings = replace(settings, density_weight=0.0)
    work = study.out / "tunings" / job.name
    tune_network(network.requires_grad_(True), base, data, settings, work, tools.perceptual, say=lambda line: None)
    shutil.rmtree(work)
    with torch.no_grad():
        return base.planes(network(front))


def start_of(job: Job, tools: Tools, truncation: float) -> torch.nn.Module:
    """Return the network of a row before tuning. Nothing else refers to it."""
    base = tools.base
    torch.manual_seed(job.face_seed)
    if job.row == rows.WITHOUT:
        return PlaneLayers(draw_heads(base.generator, [job.face_seed], truncation)).to(base.i2t.const.device)
    if job.row == rows.VECTOR:
        assert tools.vector is not None  # see Tools.lacks
        return copied(tools.vector.i2t)
    if job.row == rows.UNTRAINED:
        fresh = ImageToTriplane(base.i2t.config).to(base.i2t.const.device)
        fresh.set_statistics(base.i2t.mean_planes, base.i2t.deviation[..., 0, 0])
        return fresh
    return copied(base.i2t)


def copied(network: ImageToTriplane) -> ImageToTriplane:
    made = ImageToTriplane(network.config).to(network.const.device)
    made.load_state_dict(network.state_dict())
    return made


@torch.no_grad()
def edited(study: Study, tools: Tools, job: Job) -> dict[str, float]:
    """Edit the views of a face by one of the three ways to begin, and measure the pictures as they are."""
    generator, how = tools.base.generator, study.few_shot
    head = draw_heads(generator, [job.face_seed], how.truncation)
    cameras = cameras_of(generator.config).to(head.planes.device)
    seen = [head.view(camera[None]) for camera in cameras]
    images, depth = torch.cat([view.image for view in seen]), torch.cat([view.depth for view in seen])
    noise = tools.editor.fixed_noise(job.face_seed)
    if job.row == rows.NEW:
        noise = torch.cat([tools.editor.fixed_noise(job.face_seed + 10_000_000 * i) for i in range(len(cameras))])
    start = how.sampling.start if job.row == rows.STARTED else None
    sampling, told = replace(how.sampling, start=start), how.wording.instruct(an(job.style))
    made = as_saved(tools.editor.edit(images, told, noise, sampling).images).to(depth.device)
    found = {"between_edits": between_edits(made, depth, cameras, generator.config)}
    if (reader := tools.judges.reader) is not None:
        found["style"] = style_accuracy(made, style_of(job.style), reader)
    return found


# ----- Pictures -------------------------------------------------------------------------------------------


@torch.no_grad()
def keep_pictures(head: Planes, path: Path) -> None:
    """Write the pictures of one head from all views, [V, 3, R, R] uint8."""
    cameras = cameras_of(head.generator.config).to(head.planes.device)
    (views,) = head.views(cameras)
    with replacing(path) as unfinished:
        save_file({"images": torch.from_numpy(views.images).permute(0, 3, 1, 2).contiguous()}, unfinished)


def read_pictures(path: Path) -> Tensor:  # [V, 3, R, R] in -1 .. 1
    return from_bytes(load_file(path)["images"])
