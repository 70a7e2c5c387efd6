"""Tests of converting official snapshots to folders, and of loading the folders. The networks are tiny.

The loaded networks compute the same numbers. Hostile files are in test_hostile_pickles.py.
"""

import copy
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import official_pickles
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from goldens import load
from official_pickles import arguments, golden
from places import ROOT
from torch import nn

from dreamportrait.cli import main
from dreamportrait.core.errors import SnapshotError, WeightsError
from dreamportrait.eg3d.convert import convert_eg3d
from dreamportrait.eg3d.folder import load_discriminator, load_eg3d_config, load_generator
from dreamportrait.eg3d.snapshot import read_snapshot
from dreamportrait.weights.pickle_reader import PickleReader

G_NAME, D_NAME = "generator_tiny", "discriminator_tiny"


@pytest.fixture(scope="module")
def generator():
    return golden(G_NAME)


@pytest.fixture(scope="module")
def discriminator():
    return golden(D_NAME)


@pytest.fixture(scope="module")
def rendered(generator):
    return render(generator)


@pytest.fixture
def entries(generator, discriminator):
    """Return the content of a snapshot, which a test may change before writing it."""
    return official_pickles.snapshot(
        official_pickles.official(generator, arguments(G_NAME)),
        official_pickles.official(discriminator, arguments(D_NAME)),
    )


@pytest.fixture(scope="module")
def snapshot(generator, discriminator, tmp_path_factory) -> Path:
    """Write an unchanged snapshot and return its path."""
    g = official_pickles.official(generator, arguments(G_NAME))
    d = official_pickles.official(discriminator, arguments(D_NAME))
    path = tmp_path_factory.mktemp("snapshot") / "network-snapshot-025000.pkl"
    path.write_bytes(official_pickles.dumps(official_pickles.snapshot(g, d)))
    return path


@pytest.fixture(scope="module")
def folder(snapshot) -> Path:
    """Return the folder that the unchanged snapshot is converted to."""
    convert_eg3d(snapshot, snapshot.parent / "converted")
    return snapshot.parent / "converted"


def converted(entries: dict, tmp_path: Path, **options):
    """Convert changed content of a snapshot and return the folder."""
    (tmp_path / "s.pkl").write_bytes(official_pickles.dumps(entries))
    convert_eg3d(tmp_path / "s.pkl", tmp_path / "out", **options)
    return tmp_path / "out"


def assert_same_state(actual: nn.Module, expected: nn.Module) -> None:
    ours, theirs = actual.state_dict(), expected.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) and not ours[name].is_meta for name in theirs)


def render(generator: nn.Module):
    given = load(G_NAME).group("in")
    with torch.no_grad():
        return generator(given["z"], given["c"], resolution=8)


# Conversion.


def test_layout_of_the_made_up_snapshots(entries):
    """The made-up snapshots have the modules and attributes that names.json lists, at the places of its examples."""
    assert len(official_pickles.CLASSES) == 21
    for described, about in official_pickles.CLASSES.items():
        root, _, path = about["example"].partition(".")
        module = entries[root].get_submodule(path)
        name = described.removesuffix(" (plain, by reference)")
        plain = f"{type(module).__module__}.{type(module).__qualname__}"
        assert getattr(module, "made_as", plain) == name
        hooks = {key for key in (*vars(module), *about["state_keys"]) if "hook" in key}  # they vary with the version
        assert set(vars(module)) - hooks - {"made_as"} == set(about["state_keys"]) - hooks, described


def test_names_in_the_made_up_snapshots(snapshot, monkeypatch):
    """The made-up snapshots mention exactly the globals that names.json lists for official ones."""
    mentioned, original = set(), PickleReader._mention

    def record(reader, module, name):
        mentioned.add(f"{module}.{name}")
        original(reader, module, name)

    monkeypatch.setattr(PickleReader, "_mention", record)
    read_snapshot(snapshot)
    assert mentioned == set(load("names").info["snapshot"]["globals_seen"])


@pytest.mark.parametrize(("label_std", "protocol"), [(True, 4), (False, 4), (True, 5)])
@pytest.mark.lengthy
def test_generator_computes_the_same_bits(generator, rendered, entries, tmp_path, label_std, protocol):
    spread = torch.linspace(0, 1, 25)
    if label_std:
        entries["G_ema"].dataset_label_std = spread
    else:
        del entries["G_ema"].dataset_label_std
    (tmp_path / "s.pkl").write_bytes(official_pickles.dumps(entries, protocol))
    convert_eg3d(tmp_path / "s.pkl", tmp_path / "out")
    stored = safetensors.torch.load_file(tmp_path / "out" / "generator.safetensors")
    assert ("dataset_label_std" in stored) == label_std
    loaded = load_generator(tmp_path / "out")
    assert torch.equal(loaded.dataset_label_std, spread if label_std else torch.zeros(25))
    assert not loaded.training and all(parameter.requires_grad for parameter in loaded.parameters())
    assert all(torch.equal(a, b) for a, b in zip(render(loaded), rendered, strict=True))


def test_discriminator_computes_the_same_bits(discriminator, folder):
    loaded = load_discriminator(folder)
    assert_same_state(loaded, discriminator)
    given = load(D_NAME).group("in")
    images = (given["image_u8"].float() / 127.5 - 1, given["image_raw"], given["c"])
    with torch.no_grad():
        assert torch.equal(loaded(*images), discriminator(*images))


@pytest.mark.parametrize("name", ["generator_4x", "generator_8xdc"])
@pytest.mark.lengthy
def test_other_super_resolutions(name, tmp_path):
    made = golden(name)
    out = converted(official_pickles.snapshot(official_pickles.official(made, arguments(name))), tmp_path)
    assert_same_state(load_generator(out), made)
    assert load_generator(out).config == replace(made.config, render_resolution=64)
    assert not (out / "discriminator.safetensors").exists()
    with pytest.raises(WeightsError, match="has no discriminator"):
        load_discriminator(out)


def test_numbers_of_old_numpy(entries, generator, tmp_path):
    entries["G_ema"]._init_kwargs["conv_clamp"] = torch.tensor(256.0).double().numpy()[()]
    data = official_pickles.dumps(entries, pickler=official_pickles.OldNumpy)
    assert b"numpy.core.multiarray" in data and b"numpy._core" not in data
    (tmp_path / "s.pkl").write_bytes(data)
    assert convert_eg3d(tmp_path / "s.pkl", tmp_path / "out").generator.conv_clamp == 256


def test_config(snapshot, folder, generator, discriminator):
    written = json.loads((folder / "config.json").read_text())
    assert written["source"] == {
        "name": "network-snapshot-025000.pkl",
        "sha256": hashlib.sha256(snapshot.read_bytes()).hexdigest(),
        "network": "G_ema",
    }
    assert "NVIDIA Source Code License" in written["licence"] and "no commercial use" in written["licence"]
    assert written["format_version"] == 1
    assert written["generator"]["plane_axes"] == "official"
    config = load_eg3d_config(folder)
    assert config.generator == generator.config and config.discriminator == discriminator.config
    assert sorted(path.name for path in folder.iterdir()) == [
        *("config.json", "discriminator.safetensors", "generator.safetensors"),
    ]


def test_settings_changed_after_construction(entries, tmp_path):
    entries["G_ema"].neural_rendering_resolution = 96
    entries["G_ema"].rendering_kwargs = {
        **entries["G_ema"].rendering_kwargs,
        "depth_resolution": 7,
        "ray_start": "auto",
    }
    config = load_eg3d_config(converted(entries, tmp_path)).generator
    assert (config.render_resolution, config.num_coarse, config.ray_start) == (96, 7, "auto")


@pytest.mark.lengthy
def test_which_generator(entries, generator, tmp_path):
    other = copy.deepcopy(generator)
    with torch.no_grad():
        other.backbone.mapping.fc0.bias += 1
    entries["G"] = official_pickles.official(other, arguments(G_NAME))
    out = converted(entries, tmp_path, use="G")
    assert_same_state(load_generator(out), other)
    assert load_eg3d_config(out).source.network == "G"
    convert_eg3d(tmp_path / "s.pkl", out, overwrite=True)
    assert_same_state(load_generator(out), generator)


@pytest.mark.lengthy
def test_plane_axes_are_read_from_the_renderer(entries, tmp_path):
    """A network that was trained with corrected plane axes keeps them when it is converted."""
    entries["G_ema"].renderer.plane_axes = torch.eye(3)[torch.tensor([[0, 1, 2], [1, 2, 0], [2, 0, 1]])]
    assert load_eg3d_config(converted(entries, tmp_path)).generator.plane_axes == "xy_yz_zx"
    entries["G_ema"].renderer.plane_axes[2] = -entries["G_ema"].renderer.plane_axes[2]
    with pytest.raises(SnapshotError, match="none of the known arrangements official, xy_yz_zx"):
        converted(entries, tmp_path, overwrite=True)


def test_weights_in_another_memory_order(entries, generator, tmp_path):
    weight = entries["G_ema"].superresolution.block0.conv1.weight
    weight.data = weight.data.to(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    assert_same_state(load_generator(converted(entries, tmp_path)), generator)


# Broken snapshots.


def rename(entries, old, new):
    entries[new] = entries.pop(old)


def set_weight(module, value):
    module.weight.data = value


BROKEN = {
    "no G_ema": (
        lambda e: rename(e, "G_ema", "generator"),
        r"no network 'G_ema'; its entries are 'D', 'G', 'generator'",
    ),
    "G_ema is no network": (lambda e: e.update(G_ema={}), "no network 'G_ema'"),
    "class of G": (
        lambda e: vars(e["G_ema"]).update(made_as="Generator"),
        "G_ema is a 'Generator'; .* 'TriPlaneGenerator'",
    ),
    "class of D": (lambda e: vars(e["D"]).update(made_as="SingleDiscriminator"), "D is a 'SingleDiscriminator'"),
    "unnamed arguments": (lambda e: vars(e["G_ema"]).update(_init_args=(512,)), "unnamed arguments"),
    "unknown argument": (lambda e: e["G_ema"]._init_kwargs.update(hue=1), r"unknown arguments \['hue'\]"),
    "argument missing": (lambda e: e["D"]._init_kwargs.pop("c_dim"), "missing arguments \\['c_dim'\\]"),
    "argument of wrong type": (
        lambda e: e["G_ema"]._init_kwargs.update(z_dim="32"),
        "z_dim must be an int, got '32'",
    ),
    "argument not plain": (
        lambda e: e["G_ema"]._init_kwargs.update(z_dim=nn.Softplus()),
        "_init_kwargs.z_dim' is a Module",
    ),
    "huge argument": (
        lambda e: e["G_ema"]._init_kwargs.update(channel_max=2**40),
        "G_ema.channel_max must be a whole number",
    ),
    "many layers": (
        lambda e: e["D"]._init_kwargs.update(mapping_kwargs={"num_layers": 10**9}),
        "mapping_layers=1000000000: at most 64",
    ),
    "rendering options": (lambda e: vars(e["G_ema"]).update(rendering_kwargs=3), "G_ema was not constructed as"),
    "raw resolution": (
        lambda e: delattr(e["G_ema"], "neural_rendering_resolution"),
        "G_ema has no neural_rendering_resolution",
    ),
    "no renderer": (lambda e: delattr(e["G_ema"], "renderer"), "G_ema.renderer.plane_axes is not there"),
    "tensor missing": (lambda e: delattr(e["G_ema"].backbone.mapping, "fc1"), "missing: backbone.mapping.fc1.weight, "),
    "tensor too many": (
        lambda e: e["D"].register_buffer("more", torch.ones(2)),
        "D does not hold .* unexpected: 'more'",
    ),
    "tensor misshapen": (
        lambda e: set_weight(e["G_ema"].backbone.mapping.fc0, torch.ones(2, 3)),
        r"fc0.weight is float32 \[2, 3\], not float32 \[512, 544\]",
    ),
    "tensor of another type": (
        lambda e: set_weight(e["D"].b4.out, e["D"].b4.out.weight.half()),
        r"b4.out.weight is float16 \[16, 16\], not float32 \[16, 16\]",
    ),
    "NaN": (
        lambda e: e["G_ema"].decoder.net[0].bias.data.fill_(torch.nan),
        "G_ema holds NaN or infinite values in decoder",
    ),
    "infinity": (
        lambda e: e["D"].b8.conv0.bias.data[0].fill_(torch.inf),
        "D holds NaN or infinite values in b8.conv0.bias",
    ),
    "version": (lambda e: vars(e["D"]).update(_parameters=[]), "has no _parameters"),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.lengthy
def test_broken_snapshots(entries, generator, discriminator, tmp_path, case):
    for key in ("G", "G_ema"):
        entries[key] = official_pickles.official(copy.deepcopy(generator), arguments(G_NAME))
    entries["D"] = official_pickles.official(copy.deepcopy(discriminator), arguments(D_NAME))
    change, message = BROKEN[case]
    change(entries)
    with pytest.raises(SnapshotError if "G_ema was" in message else WeightsError, match=message) as caught:
        converted(entries, tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "s.pkl"))
    assert [path.name for path in tmp_path.iterdir()] == ["s.pkl"]


# The command.


def test_command(snapshot, folder, tmp_path):
    done = CliRunner().invoke(main, ["convert", "eg3d", str(snapshot), str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "NVIDIA Source Code License" in done.output and "128 x 128" in done.output
    for name in ("config.json", "generator.safetensors", "discriminator.safetensors"):
        assert str(tmp_path / "out" / name) in done.output
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()
    again = CliRunner().invoke(main, ["convert", "eg3d", str(snapshot), str(tmp_path / "out")])
    assert again.exit_code == 1
    assert again.output.startswith("Error: ") and len(again.output.splitlines()) == 1


def test_command_names_its_folder_and_prints_json(snapshot, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["convert", "eg3d", str(snapshot), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["out"] == snapshot.stem and found["image_resolution"] == 128
    assert found["files"] == {path.name: path.stat().st_size for path in (tmp_path / snapshot.stem).iterdir()}
    assert (tmp_path / snapshot.stem / "config.json").read_bytes() == (folder / "config.json").read_bytes()


@pytest.mark.lengthy
def test_command_fails_with_one_message(tmp_path):
    """A failing process prints nothing but the message. Importing the command line does not import PyTorch."""
    page = tmp_path / "ffhq512-128.pkl"
    page.write_text("<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head>")
    command = [sys.executable, "-m", "dreamportrait", "convert", "eg3d", str(page), str(tmp_path / "out")]
    root = ROOT
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    message = "this is a web page ('Google Drive - Quota exceeded'), the download failed: fetch the file again"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"Error: {page}: {message}\n")
    code = "import sys, dreamportrait.cli; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=root, env={**os.environ}).returncode == 0
