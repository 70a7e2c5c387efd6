"""The two steps that worker processes do for each photograph: look at it, and cut the face out.

A worker keeps what it needs between photographs in `_worker`, which `start` makes once in each process.
"""

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageOps

from dreamportrait.data.preparation.crop import Square, cut
from dreamportrait.data.preparation.detector import FaceFinder
from dreamportrait.data.preparation.files import Files
from dreamportrait.data.preparation.landmarks import Found
from dreamportrait.data.preparation.pictures import Unusable, fingerprint, open_photo
from dreamportrait.data.preparation.settings import Settings
from dreamportrait.data.preparation.tars import encode, sha256

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Networks:
    """How to find faces: from this wheel, or from the cache and the network."""

    wheel: Path | None = None
    offline: bool = False


@dataclass(frozen=True)
class Tools:
    """What the steps need in a worker process. networks: None = no faces are looked for."""

    files: Files
    settings: Settings
    networks: Networks | None


@dataclass(frozen=True)
class Seen:
    """What the first step found in a photograph."""

    file: str
    sha256: str = ""
    found: Found | None = None  # None = not looked for
    problem: str = ""


@dataclass(frozen=True)
class Job:
    """What the second step is to do. square: None = the whole picture, which is a crop already."""

    file: str
    square: Square | None
    size: tuple[int, int] | None  # of the photograph that the square refers to
    mirrored: bool = False


@dataclass(frozen=True)
class Cut:
    """An encoded crop, or why there is none."""

    content: bytes = b""
    look: str = ""
    problem: str = ""


class Worker:
    """The steps of one process."""

    def __init__(self, tools: Tools) -> None:
        self.tools = tools
        networks = tools.networks
        self.finder = None if networks is None else FaceFinder(networks.wheel, networks.offline)

    def look(self, file: str) -> Seen:
        """Read a photograph and find its faces."""
        try:
            content = self.tools.files.read(file)
            seen = Seen(file, sha256(content))
            if self.finder is None:
                return seen
            photo = open_photo(content)
            return Seen(file, seen.sha256, Found(file, photo.width, photo.height, self.finder(photo)))
        except Unusable as error:
            return Seen(file, problem=str(error))

    def cut(self, job: Job) -> Cut:
        """Read a photograph again and encode its crop."""
        settings = self.tools.settings
        try:
            photo = open_photo(self.tools.files.read(job.file))
            if job.size is not None and photo.size != job.size:
                raise Unusable(f"is {photo.width} x {photo.height}, its landmarks say {job.size[0]} x {job.size[1]}")
            crop = (
                _whole(photo, settings.resolution)
                if job.square is None
                else cut(photo, job.square, settings.resolution)
            )
            crop = ImageOps.mirror(crop) if job.mirrored else crop
            return Cut(encode(crop, settings.kind, settings.quality), fingerprint(crop))
        except Unusable as error:
            return Cut(problem=str(error))


def _whole(photo: Image.Image, resolution: int) -> Image.Image:
    if photo.width != photo.height:
        raise Unusable(f"is {photo.width} x {photo.height}; pictures that are aligned already must be square")
    if photo.width < resolution:
        raise Unusable(f"is {photo.width} x {photo.height}, smaller than the resolution {resolution}")
    return photo if photo.width == resolution else photo.resize((resolution,) * 2, Image.Resampling.LANCZOS)


_worker: Worker | None = None


def _start(tools: Tools) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends the workers
    _worker = Worker(tools)


def _look(file: str) -> Seen:
    assert _worker is not None
    return _worker.look(file)


def _cut(job: Job) -> Cut:
    assert _worker is not None
    return _worker.cut(job)


class Steps:
    """Both steps over many photographs, with results in the order of the photographs."""

    def __init__(self, look: Callable[[Iterable[str]], Iterator[Seen]], cut: Callable[[Iterable[Job]], Iterator[Cut]]):
        self.look, self.cut = look, cut


@contextmanager
def steps(tools: Tools, workers: int) -> Iterator[Steps]:
    """Yield the steps, done by so many processes. One worker is this process itself."""
    if workers == 1:
        worker = Worker(tools)
        yield Steps(lambda files: map(worker.look, files), lambda jobs: map(worker.cut, jobs))
        return
    if tools.networks is not None:  # downloads them once, and says what is missing before any process starts
        FaceFinder(tools.networks.wheel, tools.networks.offline)
    # Workers are not forked, because this process may hold threads.
    with ProcessPoolExecutor(workers, get_context("forkserver"), _start, (tools,)) as pool:
        try:
            yield Steps(lambda f: _ordered(pool, _look, f, workers), lambda j: _ordered(pool, _cut, j, workers))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _ordered(
    pool: ProcessPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Yield results in order, with at most a few photographs per worker under way."""
    under_way: deque[Future[Result]] = deque()
    for item in items:
        under_way.append(pool.submit(work, item))
        if len(under_way) >= 8 * workers:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()
