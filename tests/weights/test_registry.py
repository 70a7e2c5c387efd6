"""Tests of loading models by name: intact folders load, and errors name all damage in others."""

import json
import shutil
import socket

import pytest
import torch

from dreamportrait.core.errors import WeightsError
from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.discriminator import DiscriminatorConfig, DualDiscriminator
from dreamportrait.eg3d.folder import save_generator
from dreamportrait.eg3d.superresolution import SuperResolutionSpec
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.mini.models import from_pretrained
from dreamportrait.weights import registry
from dreamportrait.weights.registry import locate
from dreamportrait.weights.seals import seal, verify

GENERATOR = GeneratorConfig(
    z_dim=4,
    w_dim=8,
    mapping_layers=1,
    plane_resolution=8,
    plane_channels=4,
    channel_base=32,
    channel_max=8,
    decoder_hidden=4,
    superresolution=SuperResolutionSpec(4, (4, 4), (1, 2), own_filter=False),
)
DISCRIMINATOR = DiscriminatorConfig(image_resolution=8, channel_base=32, channel_max=8, mapping_layers=1)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Write a small mini/eg3d where the package keeps its weights and return its folder."""
    monkeypatch.setattr(registry.resources, "files", lambda package: tmp_path / package.replace(".", "/"))
    folder = tmp_path / "dreamportrait/mini/weights/eg3d"
    torch.manual_seed(0)
    generator, discriminator = TriPlaneGenerator(GENERATOR), DualDiscriminator(DISCRIMINATOR)
    save_generator(generator, folder, licence="Apache-2.0", discriminator=discriminator)
    (folder / "README.md").write_text("A card.\n")
    (folder / "parts").mkdir()
    (folder / "parts/more.json").write_text("{}")
    seal(folder)
    return folder


def test_a_whole_folder_is_loaded_without_a_network(installed, monkeypatch):
    def refused(*_, **__):
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket, "socket", refused)
    model = from_pretrained("mini/eg3d")
    torch.manual_seed(0)
    expected = TriPlaneGenerator(GENERATOR)
    for name, value in model.generator.state_dict().items():
        assert torch.equal(value, expected.state_dict()[name]), name
    assert model.generator.config == GENERATOR and model.discriminator.config == DISCRIMINATOR
    assert not model.generator.training and not model.discriminator.training
    assert locate("mini/eg3d") == installed


def write_clip(folder):
    from dreamportrait.mini.clip_training import CONFIGS, token_ids
    from dreamportrait.text import compact_clip

    compact_clip.save(compact_clip.build(CONFIGS["b"]).state_dict(), token_ids(), CONFIGS["b"], folder, {})


def write_diffusion(folder):
    from dreamportrait.mini.diffusion.folder import save_unet, save_vae
    from dreamportrait.mini.diffusion.unet import make_unet
    from dreamportrait.mini.diffusion.vae import make_vae

    save_vae(make_vae((8, 8, 8)), folder)
    save_unet(make_unet(8, (8, 8)), folder)


def write_oracle(folder):
    from dreamportrait.metrics.world_oracle import AttributeReader
    from dreamportrait.mini import oracle

    oracle.save(AttributeReader(), folder, {})


def write_splats(folder):
    from dreamportrait.export.splat_head import SplatHead, save_splat_head

    save_splat_head(SplatHead(), folder, TriPlaneGenerator(GENERATOR))


@pytest.mark.parametrize(
    ("name", "write", "kinds"),
    [
        ("clip-b", write_clip, ("CLIP", "SimpleTokenizer")),
        ("diffusion", write_diffusion, ("UNet2DConditionModel", "AutoencoderKL", "DDIMScheduler")),
        ("oracle", write_oracle, ("AttributeReader",)),
        ("splats", write_splats, ("SplatHead",)),
    ],
)
def test_every_kind_of_model(installed, name, write, kinds):
    write(installed.with_name(name))
    seal(installed.with_name(name))
    model = from_pretrained(f"mini/{name}")
    parts = model if isinstance(model, tuple) else (model,)
    assert tuple(type(part).__name__ for part in parts) == kinds
    assert not any(part.training for part in parts if isinstance(part, torch.nn.Module))


def test_the_seal_lists_every_file(installed):
    files = json.loads((installed / "files.json").read_text())["files"]
    networks = {"generator.safetensors", "discriminator.safetensors"}
    assert set(files) == {"README.md", "config.json", "parts/more.json"} | networks
    assert files["parts/more.json"] == {
        "bytes": 2,
        "sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",  # of "{}"
    }
    (installed / "README.md").write_text("Another card.\n")
    seal(installed)
    verify(installed)


@pytest.mark.parametrize("name", ["generator.safetensors", "config.json", "parts/more.json"])
@pytest.mark.parametrize("where", [0, -1])
def test_one_byte_is_noticed(installed, name, where):
    data = bytearray((installed / name).read_bytes())
    data[where] ^= 1
    (installed / name).write_bytes(data)
    with pytest.raises(WeightsError, match=rf"eg3d is not as it was sealed; changed: '{name}'. If .* install"):
        from_pretrained("mini/eg3d")


def test_everything_wrong_is_said_at_once(installed):
    (installed / "generator.safetensors").unlink()
    (installed / "config.json").write_text("{}")
    (installed / "parts/extra.bin").write_bytes(b"?")
    message = "missing: 'generator.safetensors'; changed: 'config.json'; not in files.json: 'parts/extra.bin'"
    with pytest.raises(WeightsError, match=message):
        from_pretrained("mini/eg3d")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "files.json is not there, so the weights next to it cannot be checked"),
        ("{", "files.json is no JSON"),
        ("[" * 100_000, "files.json is no JSON"),
        ("[]", "files.json has no object `files`"),
        ('{"format_version": 2, "files": {}}', "format_version 2; this version of dreamportrait reads 1"),
        ('{"format_version": 1, "files": {"../x": 3}}', r"missing: '../x'; not in files.json: 'README.md', "),
    ],
)
def test_damaged_seals(installed, text, message):
    (installed / "files.json").unlink()
    if text is not None:
        (installed / "files.json").write_text(text)
    with pytest.raises(WeightsError, match=message):
        from_pretrained("mini/eg3d")


def test_missing_folder(installed):
    shutil.rmtree(installed)
    with pytest.raises(WeightsError, match=r"weights of mini/eg3d are not in this installation.*make mini-weights"):
        from_pretrained("mini/eg3d")


@pytest.mark.parametrize("name", ["mini/clip-c", "mini", "eg3d", "mini/../mini/eg3d", "mini/eg3d/", ""])
def test_unknown_names(installed, name):
    with pytest.raises(WeightsError, match=rf"unknown model '{name}'; known are mini/clip-a, .*mini/oracle"):
        from_pretrained(name)


def test_nothing_to_seal(tmp_path):
    with pytest.raises(WeightsError, match="holds no files, nothing to seal"):
        seal(tmp_path / "nowhere")
