"""Measure a training step in one and two processes, and compare it with the model of docs/scaling.md.

python -m benchmarks.scaling [--repeats 5] [--batches 8,16,32]
python -m benchmarks.scaling --predict [--config configs/dreamportrait/celebatext_hq_paper.yaml] [--gpu v100]

The first command runs on this machine's processor, in processes of one thread: the step of stage 1 of the miniature
world, with gloo. It writes benchmarks/results/scaling.json. Nothing else should run meanwhile. The second command
prints what the model says for 8, 64 and 512 GPUs, and what it assumes for that.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.options import count
from dreamportrait.core.allocator import keep_freed_memory

ROOT = Path(__file__).resolve().parents[1]
RESULT = Path(__file__).parent / "results" / "scaling.json"
PAPER = ROOT / "configs" / "dreamportrait" / "celebatext_hq_paper.yaml"
GPUS = (8, 64, 512)
GPUS_OF_A_MACHINE = 8
# Assumed for GPUs, not measured here: NVLink within a machine (as NCCL reaches with 8 GPUs of an A100 machine), one
# network card of 100 Gb/s for each machine, 20 us for a round, a disk that takes 500 MB/s, pictures of 300 KB.
WITHIN, BETWEEN, ROUND = 200e9, 10e9, 20e-6
DISK, PICTURE = 500e6, 300e3

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=count, default=5)
    parser.add_argument("--batches", type=batches, default=[8, 16, 32])
    parser.add_argument("--predict", action="store_true")
    parser.add_argument("--config", type=Path, default=PAPER)
    parser.add_argument("--gpu", choices=("v100", "a100"), default="v100")
    options = parser.parse_args()
    from benchmarks.measure import identity, table, write

    if options.predict:
        print(table(predict(options.config, options.gpu)))
        return
    keep_freed_memory()
    about = identity("cpu")
    result = run(options.batches, options.repeats)
    print(table(result["rows"]))
    print("\nwrote", write(RESULT, about | result))


def batches(text: str) -> list[int]:
    """Parse an argument that must be even numbers with commas between them."""
    found = [count(word) for word in text.split(",")]
    if len(found) < 2 or any(batch % 8 for batch in found):
        raise argparse.ArgumentTypeError(f"{text}: must be two or more multiples of 8, with commas between them")
    return sorted(found)


# Measured.


def run(sizes: list[int], repeats: int) -> Row:
    """Measure steps of one process and of two, and predict the latter."""
    from dreamportrait.systems.dreamportrait.cost.scaling import Machine, fit_compute, fit_link

    alone = measure("alone", 1, [sizes[0] // 2, *sizes], repeats)
    apart, together = (measure(mode, 2, sizes, repeats) for mode in ("apart", "together"))
    compute = fit_compute({int(batch): each["seconds"] for batch, each in alone["steps"].items()})
    link = fit_link({int(size): seconds for size, seconds in together["all_reduce"].items()}, 2)
    machine = Machine(compute, link, tuple(together["sizes"]))
    rows = []
    for batch in sizes:
        one, found = alone["steps"][str(batch)], together["steps"][str(batch)]
        slower = apart["steps"][str(batch)]["seconds"] / compute.seconds(batch / 2)
        predicted, here = machine.step(batch, 2), machine.step(batch, 2, slower)
        rows.append(
            {
                "batch": batch,
                "one_process_s": one["seconds"],
                "two_processes_s": found["seconds"],
                "of_which_exchange_s": found["exchange"],
                "speedup": one["seconds"] / found["seconds"],
                "contention": slower,
                "predicted_s": here.seconds,
                "error": here.seconds / found["seconds"] - 1,
                "predicted_speedup": one["seconds"] / here.seconds,
                "predicted_speedup_without_contention": one["seconds"] / predicted.seconds,
            }
        )
    model = {"compute": vars(compute), "link": vars(link), "bytes": together["sizes"]}
    return {"rows": rows, "model": model, "measured": {"alone": alone, "apart": apart, "together": together}}


def measure(mode: str, processes: int, sizes: list[int], repeats: int) -> Row:
    """Run benchmarks/scaling_process.py in so many processes. Return what the first one found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        command = [sys.executable, "-m", "benchmarks.scaling_process", mode, ",".join(map(str, sizes)), str(repeats)]
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        place |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
        running = [
            subprocess.Popen(
                [*command, str(path)], cwd=ROOT, env=os.environ | place | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            )
            for rank in range(processes)
        ]
        codes = [process.wait() for process in running]
        if any(codes):
            raise SystemExit(f"the processes of the mode {mode} ended with {codes}")
        found: Row = json.loads(path.read_text(encoding="utf-8"))
    return found


# Predicted.


def predict(path: Path, gpu: str) -> list[Row]:
    """Return the model's steps of the last stage on 8, 64 and 512 GPUs, each with the same pictures for a GPU."""
    from dreamportrait.systems.dreamportrait.config import load_config
    from dreamportrait.systems.dreamportrait.cost.bill import estimate
    from dreamportrait.systems.dreamportrait.cost.scaling import Compute, Link, Machine

    config = load_config(path)
    bill = estimate(config, GPUS[0], gpu)
    stage = bill.stages[-1]
    assert stage.seconds is not None
    picture = stage.seconds * GPUS[0] / stage.images  # seconds of one GPU for one picture
    share = config.data.batch // GPUS[0]
    trained = {name: moving for name, _, moving in bill.networks}
    critic = trained.pop("discriminator")
    checkpoint = bill.disk["a checkpoint"] / DISK
    rows, first = [], None
    for gpus in GPUS:
        # A ring through all GPUs is as fast as its slowest link; the card of a machine carries one stream.
        link = Link(WITHIN if gpus <= GPUS_OF_A_MACHINE else BETWEEN, ROUND)
        sizes = 4 * sum(trained.values()), 4 * critic
        machine = Machine(Compute(0.0, picture), link, sizes, None, checkpoint, config.trainer.save_every_images)
        step = machine.step(share * gpus, gpus)
        first = first or step
        rows.append(
            {
                "GPUs": gpus,
                "batch": step.pictures,
                "compute_s": step.compute,
                "exchange_s": step.exchange,
                "checkpoint_s": step.checkpoint,
                "images_per_s": step.pace,
                "efficiency": step.pace / gpus / (1 / picture),
                "hours": stage.images / step.pace / 3600,
                "reading_MB_per_s": step.pace * PICTURE / 1e6,
            }
        )
    return rows


if __name__ == "__main__":
    main()
