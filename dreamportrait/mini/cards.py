"""Model cards: README.md of every folder of weights, from what lies in it.

    config.json      `scores` or `accuracy`: numbers, nested by kind
    scores.json      more of them, measured later
    training.json    `stages`: stage, command, seconds, hardware, code_version
    sheet.png        a picture, if there is one; made small

After its card a folder is final, and sealed.
"""

import json
from pathlib import Path
from typing import Any

import safetensors
from PIL import Image

from dreamportrait.core.errors import WeightsError
from dreamportrait.weights.registry import MINI
from dreamportrait.weights.seals import seal

LICENCE = "Apache-2.0"
TRAINING, SCORES, SHEET, CARD = "training.json", "scores.json", "sheet.png", "README.md"
TOTAL_BYTES, SHEET_BYTES = 16_000_000, 600_000

_CLIP = """Trained from nothing on rendered faces and captions written anew at every step, by CLIP's contrastive loss.
Pictures are moved, mirrored, blurred in part and made noisy; the features before the last text block, which condition
generators, are trained to name the picture as well. Words that captions never use are zero vectors."""

TEXTS = {
    "clip-a": (
        "A small CLIP: it conditions the generators of the miniature world.",
        'model, tokenizer = from_pretrained("mini/clip-a")  # of open_clip',
        f"{_CLIP} The picture side is a ResNet.",
    ),
    "clip-b": (
        "A small CLIP of another architecture and seed than mini/clip-a: the judge, by which nothing is trained.",
        'model, tokenizer = from_pretrained("mini/clip-b")  # of open_clip',
        f"{_CLIP} The picture side is a vision transformer.",
    ),
    "diffusion": (
        "A small Stable Diffusion: faces of 64 x 64 pixels, from latents of 16 x 16 x 4, conditioned by mini/clip-a.",
        'unet, vae, scheduler = from_pretrained("mini/diffusion")  # of diffusers',
        """First the autoencoder, by absolute differences of pixels, slopes and areas and a small KL term; then the
UNet, which predicts the noise in the latents of faces and their mirror images, one prompt in ten being empty. Both
are running averages of the trained weights.""",
    ),
    "eg3d": (
        "A small EG3D: tri-plane generator and dual discriminator for faces of 64 x 64 pixels.",
        'generator, discriminator = from_pretrained("mini/eg3d")',
        """Three stages. Regression on rendered views, from attributes instead of noise, with known distances. Then the
mapping network alone, by regression from noise to what the first stage's attributes gave. Then the discriminator alone,
and both against each other, the generator slowly.""",
    ),
    "oracle": (
        "Reads the attributes of a face of the miniature world back from its picture, for evaluation.",
        'oracle = from_pretrained("mini/oracle")',
        "A classifier trained on rendered faces, one answer per attribute; what cannot be seen is not counted.",
    ),
}


def write_all(out: Path) -> None:
    """Cards and seals of all folders of OUT; they are final then."""
    if missing := [name for name in MINI if not (out / name).is_dir()]:
        raise WeightsError(f"{out} lacks {', '.join(missing)}; train their stages first")
    for name in MINI:
        write(out / name, name)
    total = sum(path.stat().st_size for name in MINI for path in (out / name).rglob("*") if path.is_file())
    print(f"{out}: {total / 1e6:.1f} MB in {len(MINI)} folders", flush=True)
    if total > TOTAL_BYTES:
        raise WeightsError(f"{out} holds {total} bytes; {TOTAL_BYTES} may be shipped. Smaller sheets or networks do it")


def write(folder: Path, name: str) -> None:
    """The card of one folder; seals it."""
    if name not in TEXTS:
        raise WeightsError(f"unknown model {name!r}; known are {', '.join(TEXTS)}")
    if (folder / SHEET).exists():
        shrink(folder / SHEET)
    (folder / CARD).write_text(card(folder, name), encoding="utf-8")
    seal(folder)


def card(folder: Path, name: str) -> str:
    purpose, use, recipe = TEXTS[name]
    parts = [
        f"# mini/{name}",
        purpose,
        f"{parameters(folder) / 1e6:.2f} million parameters, licence {LICENCE}. Trained with this repository alone, on "
        "rendered faces: no photograph and no weights of others were used.",
        f"```python\nfrom dreamportrait.mini import from_pretrained\n\n{use}\n```",
        "## Recipe",
        recipe,
        "`make mini-weights` trains everything; these are the parts of this folder.",
        _table(("command", "time", "hardware"), _stages(folder)),
        "## Scores",
        _table(("score", "value"), _scores(folder)),
    ]
    if (folder / SHEET).exists():
        parts.append(f"![what it makes]({SHEET})")
    return "\n\n".join(parts) + "\n"


def parameters(folder: Path) -> int:
    """Numbers stored in all safetensors files."""
    count = 0
    for path in folder.rglob("*.safetensors"):
        with safetensors.safe_open(path, "np") as file:
            for key in file.keys():  # noqa: SIM118
                size = 1
                for length in file.get_slice(key).get_shape():
                    size *= length
                count += size
    return count


def shrink(path: Path) -> None:
    """A picture that is too large gets 128 colours."""
    if path.stat().st_size > SHEET_BYTES:
        with Image.open(path) as picture:
            small = picture.convert("RGB").quantize(128, dither=Image.Dither.NONE)
        small.save(path, optimize=True)


def _scores(folder: Path) -> list[tuple[str, ...]]:
    config = _json(folder / "config.json")
    found = dict(config.get("scores", {}))
    if "accuracy" in config:
        found["accuracy"] = config["accuracy"]
    if (folder / SCORES).exists():
        found |= _json(folder / SCORES)
    return [(name, f"{value:.4g}" if isinstance(value, float) else str(value)) for name, value in _flat(found)]


def _flat(values: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """{"a": {"b_c": 1}} -> [("a, b c", 1)]."""
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        name = before + key.replace("_", " ")
        rows += _flat(value, name + ", ") if isinstance(value, dict) else [(name, value)]
    return rows


def _stages(folder: Path) -> list[tuple[str, ...]]:
    stages = _json(folder / TRAINING)["stages"]
    return [(f"`{s['command']}`", f"{s['seconds'] / 60:.0f} min", s["hardware"]) for s in stages]


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _json(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{path} is not there; the card is written from it") from None
    return values
