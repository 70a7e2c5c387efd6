"""Measure how fast data sets are prepared and read, beside torchvision's ImageFolder in the same run.

python -m benchmarks.data_speed [--photos 48] [--images 256] [--workers 2] [--repeats 3] [--out FILE]

The photographs are turned and shifted copies of one portrait that scikit-image ships, at 1024 x 1024, so the detector
and the landmark network do their real work. Reading draws all pictures once in random order, at 512 x 512: from shards,
and from the same files in a folder through ImageFolder and a plain DataLoader. The two alternate. Images per second of
processor time do not depend on what else the machine does, those of the clock do.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS, identity, write
from benchmarks.options import count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=count, default=48, help="photographs to prepare")
    parser.add_argument("--images", type=count, default=256, help="pictures to read")
    parser.add_argument("--workers", type=count, default=2)
    parser.add_argument("--repeats", type=count, default=3)
    parser.add_argument("--networks", type=Path, help="the wheel with the face networks")
    parser.add_argument("--out", type=Path, default=RESULTS / "data-speed.json")
    options = parser.parse_args()
    about = identity("cpu")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_photos(root / "photos", options.photos)
        found: dict[str, Any] = {"prepare": preparing(root, options.photos, options.workers, options.networks)}
        print(found["prepare"])
        found["read"] = []
        for kind in ("jpg", "png", "webp"):
            row = {"kind": kind} | reading(root / kind, kind, options.images, options.workers, options.repeats)
            print(row, flush=True)
            found["read"].append(row)
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
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder  # type: ignore[import-untyped]
    from torchvision.transforms import PILToTensor  # type: ignore[import-untyped]

    from dreamportrait.data.shards import ShardPictures

    size = make_both(folder, kind, number)
    shards = Reader(ShardPictures(folder / "prepared"))
    plain = ImageFolder(str(folder / "files"), PILToTensor())
    result: dict[str, Any] = {"bytes each": size, "workers": workers}
    for name, processes in (("one process", 0), ("workers", workers)):
        context = "forkserver" if processes else None
        ways: dict[str, Callable[[], object]] = {
            title: lambda data=data, n=processes, c=context: read_all(  # type: ignore[misc]
                DataLoader(data, 32, shuffle=True, num_workers=n, multiprocessing_context=c)
            )
            for title, data in (("shards", shards), ("ImageFolder", plain))
        }
        times: dict[str, list[dict[str, float]]] = {title: [] for title in ways}
        for _ in range(repeats):
            for title, run in ways.items():
                with measured() as took:
                    run()
                times[title].append(took)
        result[name] = {title: rates(number, each, processes == 0) for title, each in times.items()}
    return result


def rates(number: int, times: list[dict[str, float]], alone: bool) -> dict[str, float]:
    """Return how many there were per second. The processor time of other processes is not known."""
    keys = {"clock": "per second"} | ({"processor": "per processor second"} if alone else {})
    return {name: round(number / statistics.median(t[key] for t in times), 1) for key, name in keys.items()}


class Reader:
    """Map-style data set of the pictures alone."""

    def __init__(self, pictures: Any) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Any:
        return self.pictures.image(index), 0


def read_all(loader: Any) -> None:
    for images, _ in loader:
        assert images.shape[1:] == (3, 512, 512)


def make_both(folder: Path, kind: str, number: int) -> int:
    """Write the same pictures as a prepared data set and as files in a folder; return the mean size of a file."""
    from PIL import Image
    from skimage import data

    from dreamportrait.data.preparation.run import prepare
    from dreamportrait.data.preparation.settings import Settings
    from dreamportrait.data.shards import ShardPictures

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
    import json

    (folder / "source/dataset.json").write_text(json.dumps({"labels": list(labels.items())}))
    (folder / "source/captions.jsonl").write_text("".join(rows))
    prepare(folder / "source", folder / "prepared", Settings("eg3d", kind=kind, aligned=True))
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
