"""Write the model card, README.md, of every folder of weights, from these files in the folder:

    config.json      `scores` or `accuracy`: numbers, nested by kind
    scores.json      further scores, measured later (optional)
    probe.json       what linear probes find in a CLIP (optional)
    training.json    `stages`: stage, command, seconds, hardware, code_version; `note`: a remark (optional)
    sheet.png        a picture of samples (optional); it is compressed

After the card is written, the folder is sealed and must not change any more.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors
from PIL import Image

from dreamportrait.core.errors import WeightsError
from dreamportrait.weights.registry import HEAD, LEARNT, MINI, SPLATS, STYLES
from dreamportrait.weights.seals import seal

LICENCE = "Apache-2.0"
TRAINING, SCORES, SHEET, CARD = "training.json", "scores.json", "sheet.png", "README.md"
PROBE = "probe.json"
TOTAL_BYTES, SHEET_BYTES = 40_000_000, 150_000

_CLIP = """Trained from scratch with CLIP's contrastive loss, on rendered faces with new captions at every step.
Pictures are shifted and mirrored, get noise, and some are blurred. The features before the last text block, which
condition the generators, are trained with the same loss. Words that captions never use are zero vectors."""

_FURTHER = """Then it was trained with captions that are false in one attribute, and with captions that say what is
absent ("without glasses"). Then the text tower alone learnt that a linear layer can read everything that is said, and
what is denied, from its features at the end of text. At last it was trained on what captions rarely name: eye colours
and denials. Features of other texts were held where they were, so that networks that know them need no training."""

_STYLED_CLIP = """Trained from scratch with CLIP's contrastive loss, on rendered heads from all sides with new texts at
every step; half of the heads are styled. A quarter of the texts are instructions whose result is the picture. The
features before the last text block are trained with the same loss. Words that texts never use are zero vectors."""

TEXTS = {
    "clip-a": (
        "A small CLIP that conditions the generators of the miniature world.",
        'model, tokenizer = from_pretrained("mini/clip-a")  # open_clip classes',
        f"{_CLIP} The image encoder is a ResNet.\n\n{_FURTHER}",
    ),
    "clip-b": (
        "A small CLIP that measures scores. Its architecture and seed differ from mini/clip-a; it trains no model.",
        'model, tokenizer = from_pretrained("mini/clip-b")  # open_clip classes',
        f"{_CLIP} The image encoder is a vision transformer.",
    ),
    "diffusion": (
        "A small Stable Diffusion for faces of 64 x 64 pixels, latents of 16 x 16 x 4, conditioned by mini/clip-a.",
        'unet, vae, scheduler = from_pretrained("mini/diffusion")  # diffusers classes',
        """First the autoencoder is trained, with absolute differences of pixels, of image gradients and of the means of
4 x 4 areas, and a small KL term. Then the UNet learns to predict the noise in the latents of faces and their mirror
images; one prompt in ten is empty. The stored weights are running averages of the trained weights.""",
    ),
    "eg3d": (
        "A small EG3D for faces of 64 x 64 pixels: a tri-plane generator and a dual discriminator.",
        'generator, discriminator = from_pretrained("mini/eg3d")',
        """Trained in four stages. Stage 1 trains the generator by regression on rendered views with known depth, from
attributes instead of noise. Stage 2 continues it along few rays, half of them where a small attribute (lips, an
earring) shows. Stage 3 trains only the mapping network, by regression from noise to the w of these stages. Stage 4
trains the discriminator, then both networks adversarially, with a low learning rate for the generator.""",
    ),
    "oracle": (
        "A classifier that reads the attributes of a face of the miniature world from its picture, for evaluation.",
        'oracle = from_pretrained("mini/oracle")',
        "Trained on rendered faces, with one output per attribute. Attributes that are not visible are not counted.",
    ),
    "clip-s": (
        "A small CLIP of styled heads. It conditions editors and generators of styles.",
        'model, tokenizer = from_pretrained("mini/clip-s")  # open_clip classes',
        f"{_STYLED_CLIP} The image encoder is a ResNet.",
    ),
    "clip-t": (
        "A small CLIP of styled heads that measures scores. It trains and selects nothing.",
        'model, tokenizer = from_pretrained("mini/clip-t")  # open_clip classes',
        f"{_STYLED_CLIP} The image encoder is a vision transformer, and its seed differs from that of mini/clip-s.",
    ),
    "style-oracle": (
        "A classifier that reads style, attributes, yaw and pitch of a head of the miniature world, for evaluation.",
        'oracle = from_pretrained("mini/style-oracle")',
        """Trained on rendered heads from all sides, half of them styled. Attributes that a picture does not show,
because the style changes them or the head is seen from behind, are neither trained nor counted. Scores are of
styled:validation, a tenth of whose pictures is blurred.""",
    ),
    "diffusion-styles": (
        "A small Stable Diffusion of plain and styled heads from all sides, conditioned by mini/clip-s.",
        'unet, vae, scheduler = from_pretrained("mini/diffusion-styles")  # diffusers classes',
        """VAE and UNet of mini/diffusion, tuned on rendered heads. Clay figures and clowns stay out, so that systems
can learn styles that it does not know.""",
    ),
    "ip2p": (
        "A small InstructPix2Pix: it edits pictures of heads as a sentence says, and knows all twelve styles.",
        'editor = from_pretrained("mini/ip2p")  # InstructPix2Pix of systems/freestyle/instruct.py',
        """The UNet of mini/diffusion, whose first convolution got four more channels for the latents of the picture,
and the VAE of mini/diffusion-styles. It learnt to predict v for the latents of edited pictures, on exact triples: a
plain head, an instruction, the head as the instruction wants it. Half of its loss counts positions as the edit changes
them. 5 % of the samples are without text, 5 % without picture, 5 % without both.""",
    ),
    "i2t-base": (
        "An image-to-triplane network: a frontal picture of a head becomes tri-planes of mini/eg3d.",
        'network = from_pretrained("mini/i2t-base")  # ImageToTriplane of systems/freestyle/network.py',
        """Trained on random heads of mini/eg3d with the absolute error of the planes in units of their spread; at the
end renders from random cameras count too. It also guesses w, and its differences are added to the planes that the
generator makes of the guess: `StylePipeline.from_pretrained("mini")` does that. The stored weights are running averages
of the trained weights.""",
    ),
    "i2t-any": (
        "An image-to-triplane network for fronts that mini/ip2p edited: mini/i2t-base, tuned on ten styles.",
        'network = from_pretrained("mini/i2t-any")  # ImageToTriplane of systems/freestyle/network.py',
        """All weights of mini/i2t-base were tuned on edited views of its generator's heads in ten styles, and on
unedited heads, by the losses with which a single style is learnt. Clay figures and clowns stayed out, to see what it
makes of styles that it does not know. `StylePipeline.from_pretrained("mini")` uses it for instructions.""",
    ),
    LEARNT: (
        "Styles of photos: adapters of mini/i2t-base, one in each folder.",
        'pipe = StylePipeline.from_pretrained("mini")\nhead = pipe.apply("photo.png", "mini/styles/gold-statue")',
        """Each was learnt as `dreamportrait style learn` does it: ten generated faces from eleven sides, edited by
mini/ip2p, then a tuning of low-rank deltas and an offset of the planes. Applying one needs no editor. The sheet shows
generated faces that none was learnt on: without a style, then in the styles in the order of the table.""",
    ),
    SPLATS: (
        "A small network that corrects the Gaussian splats of portraits by `mini`: position, size, rotation, colour, "
        "opacity.",
        'network = from_pretrained("mini/splats")  # make_splats(head) uses it by itself',
        """Each step draws the splats of a random portrait from a random camera and compares them with the model's own
picture. The network fits one model: `model_sha256` in config.json is the hash of its generator. Scores are in decibels,
of portraits with prompts and seeds that nothing was trained on, over cameras of the trained range.""",
    ),
    HEAD: (
        "A morphable head of the miniature world: identities, the 52 expressions of ARKit, a rig and a mean texture.",
        'model = from_pretrained("mini/head")',
        """The vertices are where rays from the middle of the head leave the world's solids, so that each has the same
meaning in every head. The identities are the principal components of 3000 random heads; `trait_dirs` gives the weights
of named traits. The expressions are smooth masks times directions; `notes` in config.json lists those that move
nothing. The mean texture is that of bald, bare heads. Scores compare bald heads, with their own textures, with the
world's exact pictures.""",
    ),
}
_IMPORTS = {LEARNT: "from dreamportrait import StylePipeline"}
_COMMANDS = {  # of models that `make mini-weights` does not train
    **dict.fromkeys(
        (*STYLES, LEARNT), "`make mini-styles` trains them all. This folder is the result of these stages:"
    ),
    SPLATS: "`make mini-splats` trains it for the shipped `mini`. This folder is the result of this command:",
    HEAD: "`make mini-head` builds it. This folder is the result of this command:",
}


def write_all(out: Path, names: Sequence[str] = MINI) -> None:
    """Write the cards of these folders of `out` and seal the folders; they must not change afterwards."""
    if missing := [name for name in names if not (out / name).is_dir()]:
        raise WeightsError(f"{out} lacks {', '.join(missing)}; train their stages first")
    for name in names:
        write(out / name, name)
    total = sum(path.stat().st_size for name in names for path in (out / name).rglob("*") if path.is_file())
    print(f"{out}: {total / 1e6:.1f} MB in {len(names)} folders", flush=True)
    if total > TOTAL_BYTES:
        raise WeightsError(
            f"{out} has {total} bytes; at most {TOTAL_BYTES} may be shipped; make sheets or networks smaller"
        )


def write(folder: Path, name: str) -> None:
    """Write the card of one folder and seal the folder."""
    if name not in TEXTS:
        raise WeightsError(f"unknown model {name!r}; known are {', '.join(TEXTS)}")
    if (folder / SHEET).exists():
        shrink(folder / SHEET)
    (folder / CARD).write_text(card(folder, name), encoding="utf-8")
    seal(folder)


def card(folder: Path, name: str) -> str:
    """Return the text of the card."""
    purpose, use, recipe = TEXTS[name]
    parts = [
        f"# mini/{name}",
        purpose,
        f"{parameters(folder) / 1e6:.2f} million parameters, licence {LICENCE}. Trained only with this repository, on "
        "rendered faces. No photographs and no third-party weights were used.",
        f"```python\n{_IMPORTS.get(name, 'from dreamportrait.mini import from_pretrained')}\n\n{use}\n```",
        "## Recipe",
        recipe,
        _COMMANDS.get(name, "`make mini-weights` trains all models. This folder is the result of these stages:"),
        _table(("command", "time", "hardware"), _stages(folder)),
        *_notes(folder),
        "## Scores",
        _table(("score", "value"), _scores(folder)),
    ]
    if (folder / SHEET).exists():
        parts.append(f"![samples]({SHEET})")
    return "\n\n".join(parts) + "\n"


def parameters(folder: Path) -> int:
    """Return the number of parameters in all safetensors files of the folder."""
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
    """Reduce a picture to 128 colours if its file is too large. Dithering would make it larger, and noisy."""
    if path.stat().st_size > SHEET_BYTES:
        with Image.open(path) as picture:
            colors = picture.convert("RGB")
        small = colors.quantize(palette=colors.quantize(128), dither=Image.Dither.NONE)
        small.save(path, optimize=True)


def _scores(folder: Path) -> list[tuple[str, ...]]:
    config = {} if folder.name == LEARNT else _json(folder / "config.json")  # learnt styles have one each
    found = dict(config.get("scores", {}))
    if "accuracy" in config:
        found["accuracy"] = config["accuracy"]
    if (folder / SCORES).exists():
        found |= _json(folder / SCORES)
    if (folder / PROBE).exists():
        found["R^2 of a linear probe"] = _json(folder / PROBE)
    return [(name, f"{value:.4g}" if isinstance(value, float) else str(value)) for name, value in _flat(found)]


def _flat(values: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Flatten nested values: {"a": {"b_c": 1}} becomes [("a, b c", 1)]."""
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        name = before + key.replace("_", " ")
        rows += _flat(value, name + ", ") if isinstance(value, dict) else [(name, value)]
    return rows


def _stages(folder: Path) -> list[tuple[str, ...]]:
    stages = _json(folder / TRAINING)["stages"]
    return [(f"`{s['command']}`", f"{s['seconds'] / 60:.0f} min", s["hardware"]) for s in stages]


def _notes(folder: Path) -> list[str]:
    """Return what the table of stages does not say: how the shipped weights differ from its commands."""
    note = _json(folder / TRAINING).get("note")
    return [] if note is None else [str(note)]


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _json(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{path} is not there; the card is written from it") from None
    return values
