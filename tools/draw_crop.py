"""Draw the picture of docs/data.md: a photograph with landmarks and the square that is cut out, and the crop.

python tools/draw_crop.py [PHOTO] [--out docs/pictures/crop.png]

Without PHOTO, it is NASA's portrait of Eileen Collins, which is in the public domain and which scikit-image ships.
"""

from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dreamportrait.core.errors import one_message
from dreamportrait.data.contact import draw_head
from dreamportrait.data.preparation.crop import cut, face_square
from dreamportrait.data.preparation.detector import FaceFinder
from dreamportrait.data.preparation.head import canonical_head
from dreamportrait.data.preparation.landmarks import Face
from dreamportrait.data.preparation.pictures import Unusable, open_photo
from dreamportrait.data.preparation.pose import angles, solve_poses, to_labels

SIZE = 512
YELLOW, GREEN, RED = (255, 210, 0), (0, 230, 80), (255, 40, 40)


@click.command(help=__doc__)
@click.argument("photo", required=False, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/pictures/crop.png"), show_default=True)
def main(photo: Path | None, out: Path) -> None:
    with one_message():
        picture = _read(photo)
        faces = FaceFinder()(picture)
        if not faces:
            raise ValueError(f"{photo}: no face was found; name another photograph")
        square = face_square(faces[0].anchors())
        head = canonical_head("mesh468")
        points = square.to_crop(faces[0].points[list(head.numbers)])
        poses = solve_poses(points[None], head.points)
        camera = to_labels(poses)[0]
        crop = cut(picture, square, SIZE)
        marked = crop.copy()
        draw_head(ImageDraw.Draw(marked), camera, SIZE)
        sheet = Image.new("RGB", (3 * SIZE, SIZE + 30), "white")
        titles = ("photograph, landmarks, square", "crop", "camera: head's box and axes")
        for i, (part, title) in enumerate(
            zip((_marked(picture, faces[0], square.corners()), crop, marked), titles, strict=True)
        ):
            sheet.paste(part, (i * SIZE, 30))
            ImageDraw.Draw(sheet).text((i * SIZE + 8, 5), title, "black", ImageFont.load_default(size=18))
        sheet.save(out)
    yaw, pitch, roll = angles(camera[None])[0]
    click.echo(
        f"wrote {out}: yaw {yaw:.1f}, pitch {pitch:.1f}, roll {roll:.1f} degrees; {poses.errors[0] * SIZE:.2f} pixels"
    )


def _read(photo: Path | None) -> Image.Image:
    if photo is None:
        from skimage import data

        return Image.fromarray(data.astronaut())
    try:
        return open_photo(photo.read_bytes())
    except Unusable as error:
        raise ValueError(f"{photo}: {error}") from None


def _marked(picture: Image.Image, face: Face, corners: np.ndarray) -> Image.Image:
    """Return the part of a photograph around the square, with what the crop is made from."""
    middle, reach = corners.mean(0), 1.5 * np.abs(corners - corners.mean(0)).max()
    left, top = middle - reach
    box = (round(left), round(top), round(left + 2 * reach), round(top + 2 * reach))
    part = picture.crop(box).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    draw, scale = ImageDraw.Draw(part), SIZE / (box[2] - box[0])
    place = [((points - box[:2]) * scale) for points in (face.points, face.anchors(), corners)]
    for x, y in place[0]:
        draw.ellipse([x - 1, y - 1, x + 1, y + 1], fill=GREEN)
    for x, y in place[1]:
        draw.ellipse([x - 5, y - 5, x + 5, y + 5], outline=RED, width=2)
    draw.polygon([tuple(point) for point in place[2]], outline=YELLOW, width=3)
    return part


if __name__ == "__main__":
    main()
