"""Decides what becomes of every photograph: its crop and camera, or the reason why it is dropped."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy import ndarray as Array

from dreamportrait.data.index import Dropped
from dreamportrait.data.preparation.captions import clean, clean_captions, names_a_side
from dreamportrait.data.preparation.crop import Square, face_square
from dreamportrait.data.preparation.head import canonical_head
from dreamportrait.data.preparation.landmarks import Face
from dreamportrait.data.preparation.layouts import Photo
from dreamportrait.data.preparation.pictures import Unusable
from dreamportrait.data.preparation.pose import angles, to_labels
from dreamportrait.data.preparation.refine import fits, refined_head, solve_in_chunks
from dreamportrait.data.preparation.settings import Settings
from dreamportrait.data.preparation.steps import Job, Seen

BACKGROUND = 1 / 9  # a face with less than this share of the largest one's area is not counted
MOST_YAW = 95.0  # degrees


@dataclass(frozen=True)
class Planned:
    """A picture that is to be written."""

    job: Job
    file: str  # in the index; a mirror image has another name than its photograph
    split: str
    captions: list[str]
    evaluation: str
    camera: Array  # [25]
    error: float | None


@dataclass
class _Candidate:
    photo: Photo
    captions: tuple[str, ...]
    evaluation: str
    face: Face | None = None
    square: Square | None = None
    size: tuple[int, int] | None = None
    camera: Array | None = None
    error: float | None = None


def plan(
    photos: Sequence[Photo], seen: Mapping[str, Seen], labels: Mapping[str, Array | str] | None, settings: Settings
) -> list[Planned | Dropped]:
    """Return what becomes of each photograph, in their order.

    labels: cameras [25] by file, or what is wrong with them; only for pictures that are aligned already.
    """
    problems: dict[str, str] = {}
    candidates: list[_Candidate] = []
    first: dict[str, str] = {}
    for photo in photos:
        try:
            candidate = _candidate(photo, seen[photo.file], labels, settings)
            same = first.setdefault(seen[photo.file].sha256, photo.file)
            if same != photo.file:
                raise Unusable(f"the same file as {same}")
            candidates.append(candidate)
        except Unusable as error:
            problems[photo.file] = str(error)
    if labels is None:
        problems |= _estimate(candidates)
    made = {candidate.photo.file: candidate for candidate in candidates}
    found: list[Planned | Dropped] = []
    for photo in photos:
        if photo.file in problems:
            found.append(Dropped(photo.file, photo.split, problems[photo.file]))
        else:
            found += _planned(made[photo.file], settings)
    return found


def _candidate(photo: Photo, seen: Seen, labels: Mapping[str, Array | str] | None, settings: Settings) -> _Candidate:
    if photo.problem or seen.problem:
        raise Unusable(photo.problem or seen.problem)
    captions = clean_captions(photo.captions)
    candidate = _Candidate(photo, captions, clean(photo.evaluation or "") or captions[0])
    if labels is not None:
        label = labels.get(photo.file, "has no label")
        if isinstance(label, str):
            raise Unusable(label)
        candidate.camera = label
        return candidate
    if seen.found is None:
        raise Unusable("no landmarks in the file that was given")
    candidate.face = _only_face(seen.found.faces, settings.largest)
    candidate.size = seen.found.width, seen.found.height
    candidate.square = face_square(candidate.face.anchors())
    _check_square(candidate.square, candidate.size, settings)
    return candidate


def _only_face(faces: Sequence[Face], largest: bool) -> Face:
    if not faces:
        raise Unusable("no face")
    first = max(faces, key=lambda face: face.size)
    counted = [face for face in faces if face.size >= BACKGROUND * first.size]
    if len(counted) > 1 and not largest:
        raise Unusable(f"{len(counted)} faces")
    return first


def _check_square(square: Square, size: tuple[int, int], settings: Settings) -> None:
    if not np.isfinite(square.middle).all() or not square.side > 0:
        raise Unusable("its landmarks are no face")
    if square.side < settings.least_side:
        raise Unusable(f"the face is small: its crop has {square.side:.0f} pixels, at least {settings.least_side}")
    outside = square.outside(*size)
    if outside > settings.most_outside:
        raise Unusable(f"{100 * outside:.0f} % of the crop lie outside, at most {100 * settings.most_outside:.0f} %")


def _estimate(candidates: list[_Candidate]) -> dict[str, str]:
    """Give the candidates cameras. Return the reasons for those that get none, by file."""
    groups: dict[str, list[_Candidate]] = defaultdict(list)
    for candidate in candidates:
        assert candidate.face is not None
        groups[candidate.face.scheme].append(candidate)
    problems = {}
    for scheme, group in groups.items():
        head = canonical_head(scheme)
        points = np.stack([_in_crop(candidate, head.numbers) for candidate in group])  # [N, P, 2]
        poses = solve_in_chunks(points, refined_head(head, points).points)
        labels = to_labels(poses)
        yaw = angles(labels)[:, 0]
        for candidate, label, error, fit, side in zip(
            group, labels, poses.errors, fits(poses.errors), yaw, strict=True
        ):
            candidate.camera, candidate.error = label, float(error)
            if not fit or not np.isfinite(label).all():
                problems[candidate.photo.file] = f"no pose fits its landmarks: they are {100 * error:.1f} % off"
            elif abs(side) > MOST_YAW:
                problems[candidate.photo.file] = f"seen from behind: yaw {side:.0f} degrees"
    return problems


def _in_crop(candidate: _Candidate, numbers: tuple[int, ...]) -> Array:
    assert candidate.face is not None and candidate.square is not None
    return candidate.square.to_crop(candidate.face.points[list(numbers)])


def _planned(candidate: _Candidate, settings: Settings) -> list[Planned]:
    photo, camera = candidate.photo, candidate.camera
    assert camera is not None
    job = Job(photo.file, candidate.square, candidate.size)
    captions = list(candidate.captions)
    both = [Planned(job, photo.file, photo.split, captions, candidate.evaluation, camera, candidate.error)]
    fair = [text for text in captions if not names_a_side(text)]
    if settings.mirror and photo.split == "train" and fair:
        evaluation = candidate.evaluation if not names_a_side(candidate.evaluation) else fair[0]
        turned = Job(photo.file, candidate.square, candidate.size, mirrored=True)
        name = f"{photo.file}#mirrored"
        both.append(Planned(turned, name, photo.split, fair, evaluation, mirrored(camera), candidate.error))
    return both


def mirrored(camera: Array) -> Array:  # [25] -> [25]
    """Return the camera of the mirror image: the world and the picture are both mirrored from left to right."""
    flip4, flip3 = np.diag([-1.0, 1.0, 1.0, 1.0]), np.diag([-1.0, 1.0, 1.0])
    pose = flip4 @ camera[:16].reshape(4, 4) @ flip4
    k = flip3 @ camera[16:].reshape(3, 3) @ flip3
    k[0, 2] = 1 - camera[18]
    return np.concatenate([pose.ravel(), k.ravel()])
