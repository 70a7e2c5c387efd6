"""A tiny free-style model in a folder, with its generator and editor, and configurations that pretrain one."""

from pathlib import Path

import torch
import yaml
from diffusion_folders import change_json
from PIL import Image
from tiny_freestyle import generator, i2t

from dreamportrait.eg3d.folder import save_generator
from dreamportrait.eg3d.layers import FullyConnected
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.mini.diffusion.folder import save_unet, save_vae
from dreamportrait.mini.diffusion.unet import make_unet
from dreamportrait.mini.diffusion.vae import make_vae
from dreamportrait.systems.freestyle.fewshot import FewShotSettings
from dreamportrait.systems.freestyle.folder import save_model
from dreamportrait.systems.freestyle.instruct import Sampling, with_picture
from dreamportrait.systems.freestyle.prompts import Wording
from dreamportrait.systems.freestyle.tuning import TuneSettings
from dreamportrait.text.loading import text_width

WORDS = "mini/clip-a"  # embeds instructions; it knows the words of plain faces
HOW = FewShotSettings(
    identities=2,
    views=2,
    yaw=20,
    pitch=7,
    sampling=Sampling(steps=2, text_scale=3),
    wording=Wording(decorative="young", negative="old"),
)
TUNING = TuneSettings(steps=2, views=2, rank=2)


def solid() -> TriPlaneGenerator:
    """Return a generator whose heads are dense enough to have a surface."""
    made = generator()
    last = made.decoder.net[2]
    assert isinstance(last, FullyConnected) and last.bias is not None
    last.bias[0] += 4 / last.bias_gain
    return made


def write_generator(folder: Path) -> Path:
    save_generator(solid(), folder, licence="of the tests")
    return folder


def write_editor(folder: Path) -> Path:
    torch.manual_seed(0)
    save_vae(make_vae((2, 4, 6)), folder)
    unet = with_picture(make_unet(text_width(WORDS), (8, 16)))
    torch.nn.init.normal_(unet.conv_in.weight, std=0.1)
    save_unet(unet, folder)
    change_json(folder / "config.json", text_encoder=WORDS)
    return folder


def write_model(place: Path, editor: bool = True) -> Path:
    """Write place/model, place/generator and place/editor. Return the first."""
    pretrained = write_generator(place / "generator")
    edits = str(write_editor(place / "editor")) if editor else None
    given = {"licence": "of the tests", "few_shot": HOW, "tuning": TUNING}
    save_model(place / "model", i2t(), solid(), pretrained=str(pretrained), editor=edits, **given)  # type: ignore[arg-type]
    return place / "model"


def write_photo(path: Path, size: int = 16, mode: str = "RGB") -> Path:
    """Write a picture of colours that change from pixel to pixel."""
    numbers = torch.randint(256, (size, size, 3), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    Image.fromarray(numbers.numpy()).convert(mode).save(path)
    return path


def write_config(place: Path, images: int = 16, **sections: object) -> Path:
    """Write a configuration of a pretraining of seconds, and the generator that it names."""
    pretrained = place / "generator"
    if not pretrained.exists():
        write_generator(pretrained)
    values: dict[str, object] = {
        "system": "freestyle",
        "run": {"name": "tiny", "folder": str(place / "runs"), "seed": 5},
        "data": {"batch": 4},
        "model": {"pretrained": str(pretrained), "code_size": 8, "code_channels": 8},
        "stages": [{"name": "pretrain", "images": images}],
        "pretrain": {"statistics": 8, "ema_images": 16, "render_share": 0.5},
        "edit": {"source": None, "views": 4},
        "tune": {"steps": 7},
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "log_every_images": 4,
            "save_every_images": 8,
            "sample_every_images": 16,
        },
    }
    path = place / "tiny.yaml"
    path.write_text(yaml.safe_dump(values | sections))
    return path
