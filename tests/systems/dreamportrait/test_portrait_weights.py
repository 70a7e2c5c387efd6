"""Tests of text-conditioned generators on disk: read strictly, written completely or not at all."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors.torch import load_file, save_file
from tiny_portraits import ABLATIONS, DISCRIMINATOR, GENERATOR, TEXT, equip, latents, plain
from torch import nn

from dreamportrait.core.errors import WeightsError
from dreamportrait.eg3d.discriminator import DualDiscriminator
from dreamportrait.eg3d.folder import load_generator, save_generator
from dreamportrait.systems.dreamportrait.critic import Critic
from dreamportrait.systems.dreamportrait.folder import TextSource, load_portrait, load_portrait_config, save_portrait
from dreamportrait.systems.dreamportrait.generator import PortraitGenerator
from dreamportrait.systems.dreamportrait.names import locate_portrait
from dreamportrait.weights import seals
from dreamportrait.weights.hashing import weights_hash
from dreamportrait.weights.registry import locate
from dreamportrait.weights.seals import seal


@pytest.fixture(scope="module")
def discriminator() -> DualDiscriminator:
    torch.manual_seed(3)
    return DualDiscriminator(DISCRIMINATOR).eval()


def save(
    folder: Path, generator: PortraitGenerator, critic: DualDiscriminator | None = None, **settings: object
) -> None:
    save_portrait(
        folder, generator, critic, TextSource("mini/clip-a"), licence="CC0-1.0", pretrained="mini/eg3d", **settings
    )


@pytest.fixture(scope="module")
def saved(discriminator, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("portraits") / "a" / "b"
    save(folder, equip(), discriminator)
    return folder


def same(a: nn.Module, b: nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


def test_save_and_load(saved, discriminator):
    loaded = load_portrait(saved)
    assert same(loaded.generator, equip()) and same(loaded.discriminator, discriminator)
    assert loaded.text == TextSource("mini/clip-a", "penultimate")
    assert not any(part.training for part in loaded.generator.modules())
    assert all(p.requires_grad for p in loaded.generator.parameters())
    with torch.no_grad():
        assert torch.equal(loaded.generator(*latents(), TEXT).image, equip()(*latents(), TEXT).image)
    config = load_portrait_config(saved)
    assert (config.licence, config.pretrained, config.generator) == ("CC0-1.0", "mini/eg3d", GENERATOR)
    assert load_portrait(saved, "bfloat16").generator.config.precision == "bfloat16"


@pytest.mark.parametrize("ablation", list(ABLATIONS))
def test_save_and_load_ablations(ablation, tmp_path):
    generator = equip(ABLATIONS[ablation])
    save(tmp_path / "out", generator)
    loaded = load_portrait(tmp_path / "out")
    assert same(loaded.generator, generator) and loaded.discriminator is None
    assert loaded.generator.conditioning == generator.conditioning


def test_half_precision_on_disk(tmp_path):
    """Saving must round matrices, but not gates and biases; loading must return single precision."""
    save(tmp_path / "out", equip(), half=True)
    loaded, expected = load_portrait(tmp_path / "out").generator.state_dict(), equip().state_dict()
    for name, value in loaded.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, expected[name].half().float() if value.ndim > 1 else expected[name]), name


def damage(folder: Path, name: str, how: str) -> None:
    path = folder / name
    if how == "removed":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        content = bytearray(path.read_bytes())
        content[-5] ^= 1
        path.write_bytes(bytes(content))


@pytest.fixture
def own(saved, tmp_path) -> Path:
    """Return a copy of the saved folder that a test may damage."""
    for path in saved.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.mark.parametrize("how", ["removed", "cut", "a bit flipped"])
@pytest.mark.parametrize("name", ["generator", "conditioning", "discriminator"])
def test_damaged_weights_are_named(own, name, how):
    damage(own, f"{name}.safetensors", how)
    kind = "missing" if how == "removed" else "changed"
    with pytest.raises(WeightsError, match=f"{kind}: '{name}.safetensors'. If you did not change it, copy the folder"):
        load_portrait(own)


def test_other_files_are_named(own):
    (own / "files.json").unlink()
    with pytest.raises(
        WeightsError, match="files.json is not there, so the weights next to it cannot be checked; copy"
    ):
        load_portrait(own)
    (own / "config.json").unlink()
    with pytest.raises(WeightsError, match="config.json is not there; save_portrait writes such folders"):
        load_portrait(own)


def reseal(folder: Path) -> None:
    seal(folder)


def test_weights_of_another_architecture(own):
    path = own / "conditioning.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors["adapters.32.gamma"] = tensors.pop("adapters.4.gamma")
    safetensors.torch.save_file(tensors, path)
    reseal(own)
    with pytest.raises(WeightsError, match=re.escape("missing: adapters.4.gamma; unexpected: 'adapters.32.gamma'")):
        load_portrait(own)


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("conditioning", "adapters", [4, 64], "adapters=[4, 64]: [64] not among the backbone's [4, 8, 16]"),
        ("conditioning", "adapters", ["4"], "config.json.conditioning.adapters must be a whole number"),
        ("conditioning", "heads", 3, "heads=3: must divide token_dim=8"),
        ("conditioning", "hidden", 3, "conditioning has unknown keys ['hidden']"),
        ("text", "layer", "last", "config.json.text.layer must be 'penultimate', got 'last'"),
    ],
)
def test_configurations_that_cannot_be(own, part, key, value, message):
    config = json.loads((own / "config.json").read_text())
    config[part][key] = value
    (own / "config.json").write_text(json.dumps(config))
    reseal(own)
    with pytest.raises(WeightsError, match=re.escape(message)):
        load_portrait(own)


def test_a_plain_generator_is_no_portrait(tmp_path):
    save_generator(plain(), tmp_path / "out", licence="CC0-1.0")
    assert load_generator(tmp_path / "out").num_ws == plain().num_ws
    with pytest.raises(WeightsError, match="describes a plain generator, which has no text conditioning; load it with"):
        load_portrait(tmp_path / "out")


def test_saving_is_all_or_nothing_and_overwrites_only_its_own(saved, tmp_path, monkeypatch):
    broken = equip()
    broken.mapper.fuse.bias.data[0] = float("nan")
    with pytest.raises(WeightsError, match="the conditioning to be saved holds NaN or infinite values in mapper.fuse"):
        save(tmp_path / "out", broken)
    assert not list(tmp_path.iterdir())
    save(tmp_path / "out", equip())
    with pytest.raises(WeightsError, match="exists and is not empty"):
        save(tmp_path / "out", equip())
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def fails(folder: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("dreamportrait.systems.dreamportrait.folder.seal", fails)
    with pytest.raises(OSError, match="disk full"):
        save(tmp_path / "out", equip({"gate": False}), overwrite=True)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    save(tmp_path / "out", equip({"gate": False}), overwrite=True)
    assert not load_portrait(tmp_path / "out").generator.conditioning.gate
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(WeightsError, match="holds other files"):
        save(tmp_path / "out", equip(), overwrite=True)


@pytest.mark.parametrize("name", ["generator.safetensors", "conditioning.safetensors", "discriminator.safetensors"])
def test_weights_that_are_not_finite_are_refused_even_if_they_are_sealed(own, name):
    tensors = load_file(own / name)
    key = next(key for key, value in tensors.items() if value.is_floating_point() and value.ndim)
    tensors[key].view(-1)[0] = float("nan")
    save_file(tensors, own / name)
    seal(own)
    with pytest.raises(WeightsError, match=f"{name} holds NaN or infinite values in {re.escape(key)}"):
        load_portrait(own)


def test_stray_files_are_not_read(own, monkeypatch):
    (own / "stray").touch()
    os.truncate(own / "stray", 3 * 2**30)  # takes no room on the disk
    os.truncate(own / "generator.safetensors", 3 * 2**30)
    read = []
    identity = seals._identity
    monkeypatch.setattr(seals, "_identity", lambda path: read.append(path.name) or identity(path))
    with pytest.raises(WeightsError, match=r"changed: 'generator.safetensors'; not in files.json: 'stray'"):
        load_portrait(own)
    assert sorted(read) == ["conditioning.safetensors", "config.json", "discriminator.safetensors"]


def test_a_critic_that_reads_text_is_saved_with_its_projection(tmp_path, discriminator):
    critic = Critic(discriminator, equip().conditioning.text_width)
    torch.nn.init.normal_(critic.projection.weight)
    save(tmp_path / "out", equip(), discriminator, projection=critic.projection)
    loaded = load_portrait(tmp_path / "out")
    again = Critic(loaded.discriminator, loaded.generator.conditioning.text_width)
    again.projection = loaded.projection
    assert same(again, critic)
    assert load_portrait_config(tmp_path / "out").discriminator is not None
    save(tmp_path / "without", equip(), discriminator)
    assert load_portrait(tmp_path / "without").projection is None


def test_a_generator_of_the_package_is_not_stored_twice(tmp_path: Path) -> None:
    """`mini` has mini/eg3d, unchanged. A folder whose generator is another one now is refused."""
    shipped = locate_portrait("mini")
    assert not (shipped / "generator.safetensors").exists()
    networks = load_portrait(shipped)
    assert weights_hash(networks.generator.generator) == weights_hash(load_generator(locate("mini/eg3d")))
    about: dict[str, Any] = {"licence": "of the tests", "pretrained": "mini/eg3d"}
    save_portrait(tmp_path / "small", networks.generator, None, networks.text, **about, store_generator=False)
    again = load_portrait(tmp_path / "small", "float16").generator
    assert weights_hash(again) == weights_hash(networks.generator) and again.config.precision == "float16"
    config = tmp_path / "small/config.json"
    config.write_text(config.read_text().replace('"generator_sha256": "', '"generator_sha256": "0f'))
    seal(tmp_path / "small")
    with pytest.raises(WeightsError, match="needs the generator mini/eg3d with the hash 0f.*install the version"):
        load_portrait(tmp_path / "small")
