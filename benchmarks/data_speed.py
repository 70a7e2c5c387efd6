"""Measure how fast data sets are prepared and read, beside torchvision's ImageFolder in the same run.

python -m benchmarks.data_speed [--photos 48] [--images 384] [--kinds jpg,png,webp] [--workers 2] [--repeats 3]

The photographs are turned and shifted copies of one portrait that scikit-image ships, at 1024 x 1024, so the detector
and the landmark network do their real work. Reading draws all pictures once in random order, in batches of 32 at
512 x 512: by training's loader from shards (with cameras and captions), and from the same files in a folder through
ImageFolder and a plain DataLoader. Both end at batches of bytes, and alternate. The clock runs from the first batch
until as many are left as workers read ahead, so it counts neither their start nor what they had read before. Turning
bytes into -1 .. 1 is timed by itself, as training does that on its device.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.measure import RESULTS, identity, write
from benchmarks.options import count
from dreamportrait.data.dataset import Batch, Conditions, Pictures, TrainingData
from dreamportrait.data.loader import Loader
from dreamportrait.data.preparation.tars import KINDS
from dreamportrait.data.shards import ShardPictures
from dreamportrait.text.encoder import TextFeatures

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=count, default=48, help="photographs to prepare")
    parser.add_argument("--images", type=count, default=384, help="pictures to read")
    parser.add_argument("--kinds", default=",".join(KINDS), help="of files to read")
    parser.add_argument("--workers", type=count, default=2)
    parser.add_argument("--repeats", type=count, default=3)
    parser.add_argument("--networks", type=Path, help="the wheel with the face networks")
    parser.add_argument("--out", type=Path, default=RESULTS / "data-speed.json")
    options = parser.parse_args()
    if options.images < (least := (1 + ahead(options.workers)) * BATCH):
        parser.error(f"--images {options.images}: must be at least {least} for {options.workers} workers")
    kinds = options.kinds.split(",")
    if wrong := sorted(set(kinds) - set(KINDS)):
        parser.error(f"--kinds {wrong[0]}: must be among {', '.join(KINDS)}")
    about = identity("cpu")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_photos(root / "photos", options.photos)
        found: dict[str, Any] = {"prepare": preparing(root, options.photos, options.workers, options.networks)}
        print(found["prepare"])
        found["read"] = []
        for kind in kinds:
            row = {"kind": kind} | reading(root / kind, kind, options.images, options.workers, options.repeats)
            print(row, flush=True)
            found["read"].append(row)
        found["to floats, per processor second"] = converting(options.images)
        print(found["to floats, per processor second"])
    print("wrote", write(options.out, about | found))


def write_photos(folder: Path, number: int) -> None:
    from PIL import Image
    from skimage import data

    folder.mkdir()
    portrait = Image.fromarray(data.astronaut()).crop((60, 0, 390, 330)).resize((1200, 1200), Image.Resampling.BICUBIC)
    for i in range(number):
        turned = portrait.rotate(20 * i / number - 10, Image.Resampling.BICUBIC)
        turned.crop((60 + i % 9, 60 + i % 7, 1084 + i % 9, 1084 + i % 7)).save(folder / f"{i:05d}.jpg", quality=95)
        (folder / f"{i:05d}.txt").write_text(f"a smiling woman in a space suit, {i}\n")


def preparing(root: Path, number: int, workers: int, networks: Path | None) -> dict[str, Any]:
    from dreamportrait.data.preparation.run import prepare
    from dreamportrait.data.preparation.settings import Settings
    from dreamportrait.data.preparation.steps import Networks

    found: dict[str, Any] = {"photographs": number, "workers": workers}
    for name, processes in (("one process", 1), ("all workers", workers)):
        with measured() as took:
            out = root / name
            outcome = prepare(root / "photos", out, Settings(), workers=processes, networks=Networks(networks))
        found[name] = rates(number, [took], processes == 1)
        found["pictures"] = outcome.pictures
    return found


def reading(folder: Path, kind: str, number: int, workers: int, repeats: int) -> dict[str, Any]:
    """Return images per second of both ways to read, as medians over repeats that alternate."""
    from torchvision.datasets import ImageFolder  # type: ignore[import-untyped]
    from torchvision.transforms import PILToTensor  # type: ignore[import-untyped]

    size = make_both(folder, kind, number, workers)
    shards = TrainingData(ShardPictures(folder / "prepared"))
    plain = ImageFolder(str(folder / "files"), PILToTensor())

    def loader(processes: int) -> Iterable[Tensor]:
        batches = Loader(shards, NoText(), seed=0, batch=BATCH, total=number, workers=processes)
        return (batch.pixels for batch in batches)

    def usual(processes: int) -> Iterable[Tensor]:
        context = "forkserver" if processes else None
        batches = DataLoader(plain, BATCH, shuffle=True, num_workers=processes, multiprocessing_context=context)
        return (images for images, _ in batches)

    timed = number // BATCH - ahead(workers)
    result: dict[str, Any] = {"bytes each": size, "workers": workers, "pictures timed": timed * BATCH}
    result["decoded, per processor second"] = decoding(shards.pictures, number)
    for name, processes in (("one process", 0), ("workers", workers)):
        times: dict[str, list[dict[str, float]]] = {"shards": [], "ImageFolder": []}
        for _ in range(repeats):
            times["shards"].append(read(loader(processes), ahead(workers), timed))
            times["ImageFolder"].append(read(usual(processes), ahead(workers), timed))
        result[name] = {title: rates(timed * BATCH, each, processes == 0) for title, each in times.items()}
    return result


def decoding(pictures: Pictures, number: int) -> float:
    """Return how many pictures are read and decoded per second of processor time, without cameras and batches."""
    with measured() as took:
        for i in range(number):
            assert pictures.image(i).dtype == torch.uint8
    return round(number / took["processor"], 1)


def converting(number: int) -> float:
    """Return how many pictures are turned from bytes into -1 .. 1 per second of processor time."""
    none = Conditions(torch.empty(BATCH, 25), [])
    batch = Batch(torch.zeros(BATCH, 512, 512, 3, dtype=torch.uint8).permute(0, 3, 1, 2), none, none)
    assert batch.image.shape == (BATCH, 3, 512, 512)
    with measured() as took:
        for _ in range(number // BATCH):
            assert batch.image.dtype == torch.float32
    return round(number / took["processor"], 1)


def rates(number: int, times: list[dict[str, float]], alone: bool) -> dict[str, float]:
    """Return how many there were per second. The processor time of other processes is not known."""
    keys = {"clock": "per second"} | ({"processor": "per processor second"} if alone else {})
    return {name: round(number / statistics.median(t[key] for t in times), 1) for key, name in keys.items()}


class NoText:
    """Stands for the encoder of captions, which reading is measured without."""

    def encode(self, prompts: Sequence[str]) -> TextFeatures:
        return TextFeatures(*torch.empty(3, len(prompts), 0).unbind())


def ahead(workers: int) -> int:
    """Return how many batches are taken before the clock starts: the first, and those that were read ahead."""
    return 1 + 2 * workers


def read(batches: Iterable[Tensor], first: int, count: int) -> dict[str, float]:
    """Return how long `count` batches took after the `first` ones."""
    left = iter(batches)
    for _ in range(first):
        next(left)
    with measured() as took:
        for _ in range(count):
            images = next(left)
            assert images.shape == (BATCH, 3, 512, 512) and images.dtype == torch.uint8
    return took


def make_both(folder: Path, kind: str, number: int, workers: int) -> int:
    """Write the same pictures as a prepared data set and as files in a folder; return the mean size of a file."""
    from PIL import Image
    from skimage import data

    from dreamportrait.data.preparation.run import prepare
    from dreamportrait.data.preparation.settings import Settings

    source = folder / "source" / "00000"
    source.mkdir(parents=True)
    portrait = Image.fromarray(data.astronaut())
    labels = {}
    camera = [1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 2.7, 0, 0, 0, 1, 4.2647, 0, 0.5, 0, 4.2647, 0.5, 0, 0, 1]
    rows = []
    for i in range(number):
        name = f"00000/{i:05d}.png"
        portrait.rotate(i % 23 - 11, Image.Resampling.BICUBIC).transform(
            (512, 512), Image.Transform.AFFINE, (1, 0, i // 23, 0, 1, 0), Image.Resampling.NEAREST
        ).save(folder / "source" / name, compress_level=0)
        labels[name] = camera
        rows.append(f'{{"file": "{name}", "caption": "a portrait, {i}", "split": "train"}}\n')
    (folder / "source/dataset.json").write_text(json.dumps({"labels": list(labels.items())}))
    (folder / "source/captions.jsonl").write_text("".join(rows))
    prepare(folder / "source", folder / "prepared", Settings("eg3d", kind=kind, aligned=True), workers=workers)
    pictures = ShardPictures(folder / "prepared")
    (folder / "files/one").mkdir(parents=True)
    for i in range(len(pictures)):
        (folder / f"files/one/{i:05d}.{kind}").write_bytes(pictures.content(i))
    return sum(entry.size for entry in pictures.entries) // len(pictures)


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Measure the clock, and the processor time of this process."""
    took: dict[str, float] = {}
    clock, used = time.perf_counter(), time.process_time()
    yield took
    took |= {"clock": time.perf_counter() - clock, "processor": time.process_time() - used}


if __name__ == "__main__":
    main()
