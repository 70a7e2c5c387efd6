"""Measure how exact estimated head poses are, in degrees, where the true cameras are known.

python -m benchmarks.data_poses [--faces 200] [--heads 400] [--out benchmarks/results/data-poses.json]

1. Rendered faces of the miniature world, through everything that photographs go through: detector, landmark network,
   crop, pose. The networks learnt real faces; drawings that they do not see as faces are counted. The front of a drawn
   head is not that of the mean face, so the error is also given after one common rotation is taken out.
2. One real face, turned: the landmark network's own mesh of a portrait that scikit-image ships, drawn with the
   portrait's colours after known rotations. The error is that of the change of pose, because the portrait's own pose
   is not known. The sides of the mesh are torn when it turns by more than 20 degrees, which real faces are not.
3. Landmarks projected from heads with known shapes. The heads differ from the canonical head all in the same way and
   each in its own way, landmarks are noisy, and one in twenty is wrong. Poses by the canonical head are compared with
   poses by the head that is fitted to the set.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray as Array

from benchmarks.measure import RESULTS, identity, write

NOISE = 1.5  # pixels of 512, of each landmark
WRONG = 0.05  # share of landmarks that are 20 pixels off
SHARED, OWN = 0.012, 0.008  # by how much heads differ: root mean square in the world; 0.01 is 4 mm of a real head
SPREAD = (20.0, 10.0)  # degrees of yaw and pitch, standard deviations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=200, help="rendered faces")
    parser.add_argument("--heads", type=int, default=400, help="heads with projected landmarks")
    parser.add_argument("--networks", type=Path, help="the wheel with the face networks")
    parser.add_argument("--out", type=Path, default=RESULTS / "data-poses.json")
    options = parser.parse_args()
    found = {
        "rendered": rendered_faces(options.faces, options.networks),
        "portrait, turned": turned_portrait(options.networks),
        "projected": {scheme: projected(scheme, options.heads) for scheme in ("mesh468", "points68", "points5")},
    }
    for name, values in (*list(found.items())[:2], *found["projected"].items()):
        print(name, values)
    print("wrote", write(options.out, identity("cpu") | found))


def summary(errors: Array) -> dict[str, float]:
    names = ("median", "90 %", "largest")
    return {name: round(float(v), 2) for name, v in zip(names, np.percentile(errors, (50, 90, 100)), strict=True)}


# 1. Rendered faces.


def rendered_faces(count: int, networks: Path | None) -> dict[str, Any]:
    from PIL import Image

    from dreamportrait.data.preparation.crop import face_square
    from dreamportrait.data.preparation.detector import FaceFinder
    from dreamportrait.data.preparation.head import canonical_head
    from dreamportrait.data.preparation.pose import angles, rotation_error, to_labels
    from dreamportrait.data.preparation.refine import refined_head, solve_in_chunks
    from dreamportrait.miniworld import world
    from dreamportrait.miniworld.rendering import rendered

    finder, head = FaceFinder(networks), canonical_head("mesh468")
    codes, cameras = world.identities("validation", count), world.random_cameras(count, world.SEEDS["validation"])
    pictures = (image for images, _ in rendered(codes, cameras, 256, 1) for image in images)
    points, truth = [], []
    for picture, camera in zip(pictures, cameras, strict=True):
        faces = finder(Image.fromarray(picture.transpose(1, 2, 0)))
        if len(faces) == 1:
            square = face_square(faces[0].anchors())
            points.append(square.to_crop(faces[0].points[list(head.numbers)]))
            truth.append(rolled(np.asarray(camera, float), square.axes))
    seen, known = np.stack(points), np.stack(truth)
    found: dict[str, Any] = {"faces": count, "detected": len(seen)}
    for name, shape in (("canonical head", head), ("fitted head", refined_head(head, seen))):
        labels = to_labels(solve_in_chunks(seen, shape.points))
        common = common_rotation(labels, known)
        off = np.abs(angles(labels) - angles(known))
        found[name] = {
            "yaw": summary(off[:, 0]),
            "pitch": summary(off[:, 1]),
            "degrees": summary(rotation_error(labels, known)),
            "degrees without common rotation": summary(rotation_error(turned(labels, common), known)),
        }
    return found


def rolled(camera: Array, axes: Array) -> Array:
    """Return the camera of a crop whose axes [2, 2] are turned in the picture."""
    turn = np.eye(3)
    turn[:2, :2] = axes.T
    return turned(camera[None], turn, on_the_right=True)[0]


def turned(cameras: Array, rotation: Array, on_the_right: bool = False) -> Array:
    """Return cameras whose rotations are multiplied by another one."""
    changed = cameras.copy()
    pose = changed[:, :16].reshape(-1, 4, 4)  # a view
    own = pose[:, :3, :3].copy()
    pose[:, :3, :3] = own @ rotation if on_the_right else rotation @ own
    return changed


def common_rotation(found: Array, known: Array) -> Array:
    """Return the rotation of the world that moves the cameras that were found closest to the known ones."""
    a, b = (labels[:, :16].reshape(-1, 4, 4)[:, :3, :3] for labels in (found, known))
    u, _, vt = np.linalg.svd((b @ a.swapaxes(1, 2)).sum(0))
    return u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt


# 2. A real face, turned.


def turned_portrait(networks: Path | None) -> dict[str, Any]:
    from PIL import Image
    from scipy.spatial import Delaunay  # type: ignore[import-untyped]
    from skimage import data

    from dreamportrait.data.preparation.detector import FaceFinder
    from dreamportrait.data.preparation.pose import rotation_error

    finder = FaceFinder(networks)
    portrait = Image.fromarray(data.astronaut()).crop((60, 0, 400, 340)).resize((1020, 1020), Image.Resampling.BICUBIC)
    mesh = finder.meshes(portrait)[0]
    triangles = Delaunay(mesh[:, :2]).simplices
    first = in_the_picture(finder, portrait)
    assert first is not None
    found: dict[str, Any] = {}
    for axis, angles in (("yaw", range(-40, 41, 10)), ("pitch", range(-20, 21, 10))):
        for angle in angles:
            turn = about(axis, angle)
            picture = drawn(portrait, mesh, triangles, turn)
            camera = in_the_picture(finder, picture)
            known = turned(first[None], turn.T, on_the_right=True)
            error = None if camera is None else round(float(rotation_error(camera[None], known)[0]), 2)
            found[f"{axis} {angle:+d}"] = error  # None = not found
    return found


def about(axis: str, degrees: float) -> Array:
    """Return a rotation in the camera's axes."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (
        np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) if axis == "yaw" else np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    )


def drawn(portrait: Any, mesh: Array, triangles: Array, turn: Array) -> Any:
    """Draw the mesh after a rotation, in front of the blurred portrait."""
    from PIL import Image, ImageFilter
    from scipy.ndimage import map_coordinates  # type: ignore[import-untyped]

    from dreamportrait.geometry.raster import rasterise

    middle = mesh.mean(0)
    moved = (mesh - middle) @ turn.T + middle
    raster = rasterise(moved[:, :2], moved[:, 2], triangles, portrait.size[::-1])
    x, y = raster.blend(triangles, mesh[:, :2]).T - 0.5  # where each pixel comes from
    colours = np.asarray(portrait, float)
    picture = np.array(portrait.filter(ImageFilter.GaussianBlur(40)))
    picture[raster.mask] = np.stack([map_coordinates(colours[..., c], [y, x], order=1) for c in range(3)], 1)
    return Image.fromarray(picture)


def in_the_picture(finder: Any, picture: Any) -> Array | None:
    """Return the camera of the only face, with the axes of the picture; None if there is no such face."""
    from dreamportrait.data.preparation.crop import face_square
    from dreamportrait.data.preparation.head import canonical_head
    from dreamportrait.data.preparation.pose import solve_poses, to_labels

    faces, head = finder(picture), canonical_head("mesh468")
    if len(faces) != 1:
        return None
    square = face_square(faces[0].anchors())
    label = to_labels(solve_poses(square.to_crop(faces[0].points[list(head.numbers)])[None], head.points))[0]
    return rolled(label, square.axes.T)


# 3. Projected landmarks.


def projected(scheme: str, count: int, seed: int = 0) -> dict[str, Any]:
    from dreamportrait.data.preparation.head import canonical_head
    from dreamportrait.data.preparation.pose import project, rotation_error, solve_poses, to_labels
    from dreamportrait.data.preparation.refine import refined_head

    rng, head = np.random.default_rng(seed), canonical_head(scheme)
    shared = deformed(head.points, head.points, SHARED, rng)
    heads = np.stack([deformed(shared, head.points, OWN, rng) for _ in range(count)])
    cameras = random_cameras(count, rng)
    points = project(cameras, heads) + rng.normal(0, NOISE / 512, (count, len(head.points), 2))
    wrong = rng.random(points.shape[:2]) < WRONG
    if scheme != "points5":  # five points cannot outvote one of them
        points[wrong] += rng.normal(0, 20 / 512, (wrong.sum(), 2))
    shapes = {
        "canonical head": head.points,
        "fitted head": refined_head(head, points).points,
        "true mean head": shared,
        "true heads": heads,
    }
    return {
        name: summary(rotation_error(to_labels(solve_poses(points, shape)), cameras)) for name, shape in shapes.items()
    }


def random_cameras(count: int, rng: np.random.Generator) -> Array:
    import torch

    from dreamportrait.data.preparation.pose import PIVOT, make_labels
    from dreamportrait.geometry.cameras import look_at

    yaw, pitch = (np.radians(rng.normal(0, spread, count)) for spread in SPREAD)
    places = PIVOT + np.stack([np.cos(pitch) * np.sin(yaw), np.sin(pitch), np.cos(pitch) * np.cos(yaw)], 1)
    rotations = look_at(torch.from_numpy(places), torch.from_numpy(PIVOT))[:, :3, :3].numpy()
    return make_labels(rotations, places)


def deformed(points: Array, home: Array, amount: float, rng: np.random.Generator) -> Array:
    """Return a head that is changed smoothly and symmetrically, and moved back onto `home` as a whole."""
    from dreamportrait.data.preparation.head import similarity

    x, y, z = ((points - [0, 0, 0.2]) / 0.1).T
    terms = np.stack([np.ones_like(x), abs(x), y, z, x * x, y * y, z * z, abs(x) * y, y * z], 1)  # [P, 9]
    move = terms @ rng.normal(0, 1, (terms.shape[1], 3))
    move[:, 0] *= np.sign(x)
    moved = points + amount * move / np.sqrt((move**2).sum(1).mean())
    scale, rotation, offset = similarity(moved, home, np.ones(len(home)))
    return scale * moved @ rotation.T + offset


if __name__ == "__main__":
    main()
