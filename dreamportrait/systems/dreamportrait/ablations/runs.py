"""Run an ablation study: train and measure every job, and keep its result. Jobs that have a result are skipped.

OUT/base.yaml             the whole method, copied at the last start
OUT/trainings/ROW-seedN/  runs of train.py, which resumes interrupted ones
OUT/logs/ROW-seedN.txt    their output
OUT/scores/ROW-seedN/     reports of dreamportrait evaluate
OUT/also/scores/ROW-seedN/    the same of a second data set, if there is one
OUT/results/ROW-seedN.json    the results
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dreamportrait.core.files import write_text
from dreamportrait.core.locks import alone
from dreamportrait.core.machine import machine
from dreamportrait.metrics import evaluation, report
from dreamportrait.systems.dreamportrait import build
from dreamportrait.systems.dreamportrait.ablations.rows import MINI, OURS
from dreamportrait.systems.dreamportrait.ablations.study import (
    Job,
    Study,
    base_config,
    check,
    placed,
    result_path,
    resume,
    settings,
)
from dreamportrait.systems.dreamportrait.config import load_config
from dreamportrait.systems.dreamportrait.subject import load_subject
from dreamportrait.training.run_folder import RESULT

Say = Callable[[str], None]
_LAST_LINES = 5


class TrainingFailed(RuntimeError):
    """A row could not be trained to the end."""


def run(
    study: Study,
    say: Say = print,
    train: Callable[[Study, Job], Path] | None = None,  # returns the folder of the trained generator. None = train_row
    measure: Callable[[Study, Job, Path], dict[str, Any]] | None = None,  # returns a report. None = measure_row
) -> list[Job]:
    """Run all jobs of a study and return those that failed. Their trainings are resumed when the study is run again."""
    train, measure = train or train_row, measure or measure_row
    taken = f"--out {study.out}: another process is filling it; wait for it, or name another folder"
    with alone(study.out / ".lock", ValueError(taken)):  # two processes at once would train the same rows
        check(study)
        study = _frozen(study)
        jobs, failed = study.jobs(), []
        for number, job in enumerate(jobs, 1):
            head = f"[{number}/{len(jobs)}] {job.name}:"
            if result_path(study.out, job).exists():
                say(f"{head} has a result already")
                continue
            say(f"{head} started {time.strftime('%Y-%m-%d %H:%M:%S')}")
            try:
                scores = _do(study, job, train, measure)["report"]["scores"]
            except (TrainingFailed, ValueError, OSError) as error:
                failed.append(job)
                say(f"{head} failed: {error}")
                continue
            r_precision = 100 * scores["r_precision"]["value"]
            say(f"{head} FID {scores['fid']:.4f}, MSC {scores['msc']:.2f}, R-P {r_precision:.1f} %")
    return failed


def _do(
    study: Study,
    job: Job,
    train: Callable[[Study, Job], Path],
    measure: Callable[[Study, Job, Path], dict[str, Any]],
) -> dict[str, Any]:
    with _timed(study, job):
        portrait = train(study, job)
    started = time.monotonic()
    found = {
        "row": job.row.name,
        "seed": job.seed,
        "world": study.world,
        "config": study.config,
        "settings": settings(study, job),
        "report": measure(study, job, portrait),
        "seconds": {"training": _spent(study, job), "measuring": time.monotonic() - started},
        "sites": list(study.sites),
        "machine": machine("cuda" if on_gpu(study) else "cpu"),
    }
    if study.also is not None:
        found["also"] = measure(replace(study, dataset=study.also, out=study.out / "also"), job, portrait)
    write_text(result_path(study.out, job), json.dumps(found, indent=1, allow_nan=False) + "\n")
    return found


def train_row(study: Study, job: Job) -> Path:
    """Train a row with train.py, in its own process with its output in a log file. Return the generator's folder."""
    config = load_config(study.path, placed(study, job))
    if not job.row.trained and study.start is not None:
        return study.start
    if job.row == OURS:
        return Path(MINI)  # a name that evaluation knows
    if not job.row.trained:
        build.save_untrained(config, config.folder / RESULT)
        return config.folder / RESULT
    changes = [word for change in placed(study, job) for word in ("--set", change)]
    command = [sys.executable, str(study.root / "train.py"), "--config", str(study.path), *changes]
    if (begin := resume(study, job)) != "auto":
        shutil.rmtree(config.folder, ignore_errors=True)  # stopped before its first checkpoint
        command += ["--resume", begin]
    log = study.out / "logs" / f"{job.name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        last = " / ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:])
        raise TrainingFailed(f"train.py ended with exit code {done.returncode}; {log} ends: {last}")
    return config.folder / RESULT


def measure_row(study: Study, job: Job, portrait: Path) -> dict[str, Any]:
    """Measure a generator as `dreamportrait evaluate` does, with its judge and protocol, and return the report."""
    out = study.out / "scores" / job.name
    request = evaluation.Request(
        checkpoint=str(portrait),
        dataset=study.dataset,
        out=out,
        count=study.samples,
        clip=study.judge,
        extractor=study.extractor,
        gpu=on_gpu(study),
        offline=base_config(study).run.offline,
        overwrite=True,
    )
    evaluation.run(request, load_subject)
    found: dict[str, Any] = json.loads((out / report.JSON).read_text(encoding="utf-8"))
    return found


# Helpers.


def on_gpu(study: Study) -> bool:
    """Return whether the configuration lets the rows use a GPU, and there is one."""
    return base_config(study).trainer.accelerator != "cpu" and torch.cuda.is_available()


def _frozen(study: Study) -> Study:
    """Return a study that reads a copy of the configuration, so that the file may be edited while the study runs."""
    path = study.out / "base.yaml"
    write_text(path, base_config(study).to_yaml())
    return replace(study, path=path)


@contextmanager
def _timed(study: Study, job: Job) -> Iterator[None]:
    """Add the time of the `with` block to the job's training time, also if the training is interrupted."""
    before, started = _spent(study, job), time.monotonic()
    try:
        yield
    finally:
        write_text(_seconds_path(study, job), f"{before + time.monotonic() - started:.1f}\n")


def _spent(study: Study, job: Job) -> float:
    path = _seconds_path(study, job)
    return float(path.read_text(encoding="utf-8")) if path.exists() else 0.0


def _seconds_path(study: Study, job: Job) -> Path:
    return study.out / "logs" / f"{job.name}.seconds"
