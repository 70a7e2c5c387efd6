"""Tests of weight folders: written completely or not at all, replaced only on request, read strictly."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from official_pickles import golden

from dreamportrait.core import files
from dreamportrait.core.errors import WeightsError
from dreamportrait.eg3d.folder import load_discriminator, load_eg3d_config, load_generator, save_generator
from dreamportrait.weights import folder as folders

FILES = ["config.json", "discriminator.safetensors", "generator.safetensors"]


@pytest.fixture(scope="module")
def generator():
    return golden("generator_tiny")


@pytest.fixture(scope="module")
def discriminator():
    return golden("discriminator_tiny")


@pytest.fixture(scope="module")
def folder(generator, discriminator, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "a" / "b"
    save_generator(generator, folder, licence="CC0-1.0", discriminator=discriminator)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_save_and_load(generator, discriminator, folder):
    assert names(folder) == FILES
    assert names(folder.parent) == ["b"]
    for loaded, saved in ((load_generator(folder), generator), (load_discriminator(folder), discriminator)):
        assert not loaded.training and all(parameter.requires_grad for parameter in loaded.parameters())
        actual, expected = loaded.state_dict(), saved.state_dict()
        assert list(actual) == list(expected)
        assert all(torch.equal(actual[name], expected[name]) for name in expected)
    config = load_eg3d_config(folder)
    assert (config.licence, config.source) == ("CC0-1.0", None)
    assert (config.generator, config.discriminator) == (generator.config, discriminator.config)


def test_without_a_discriminator(generator, tmp_path):
    save_generator(generator, tmp_path / "out", licence="CC0-1.0")
    assert names(tmp_path / "out") == ["config.json", "generator.safetensors"]
    with pytest.raises(WeightsError, match="out has no discriminator"):
        load_discriminator(tmp_path / "out")


def test_precision_is_chosen_at_loading(folder):
    assert load_generator(folder, "bfloat16").config.precision == "bfloat16"
    assert load_discriminator(folder, "float16").config.precision == "float16"
    with pytest.raises(ValueError, match="precision='half'"):
        load_generator(folder, "half")


def test_loading_leaves_random_numbers_alone(folder):
    before = torch.get_rng_state()
    load_generator(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_overwriting(generator, tmp_path):
    out = tmp_path / "out"
    out.mkdir()  # an empty folder may be filled
    save_generator(generator, out, licence="first")
    with pytest.raises(WeightsError, match="exists and is not empty"):
        save_generator(generator, out, licence="second")
    assert load_eg3d_config(out).licence == "first"
    save_generator(generator, out, licence="third", overwrite=True)
    assert load_eg3d_config(out).licence == "third"
    (out / "thesis.txt").touch()
    with pytest.raises(WeightsError, match=r"other files \(thesis.txt\) and is left alone"):
        save_generator(generator, out, licence="fourth", overwrite=True)
    with pytest.raises(WeightsError, match="exists and is no folder"):
        save_generator(generator, out / "thesis.txt", licence="fifth", overwrite=True)
    assert load_eg3d_config(out).licence == "third"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("step", ["save_file", "os.fsync", "Path.rename"])
@pytest.mark.parametrize("existing", [False, True])
def test_nothing_is_ever_half_written(generator, tmp_path, monkeypatch, step, existing):
    """If the disk is full, at each kind of step, the previous content stays and nothing else is left behind."""
    out, rename = tmp_path / "out", Path.rename
    if existing:
        save_generator(generator, out, licence="old")

    def fail(*args, **kwargs):
        if step != "Path.rename" or args[0].name.endswith(".new"):
            raise OSError(28, "No space left on device")
        return rename(*args, **kwargs)

    places = {
        "save_file": (folders, "save_file"),
        "os.fsync": (files.os, "fsync"),
        "Path.rename": (files.Path, "rename"),
    }
    monkeypatch.setattr(*places[step], fail)
    with pytest.raises(OSError, match="No space left"):
        save_generator(generator, out, licence="new", overwrite=True)
    monkeypatch.undo()
    assert names(tmp_path) == ["out"] * existing
    if existing:
        assert load_eg3d_config(out).licence == "old"
        load_generator(out)


@pytest.fixture
def copied(folder, tmp_path) -> Path:
    """Return a copy of the folder, which a test may damage."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


BAD_CONFIGS = {
    "version": (lambda v: v.update(format_version=2), "format_version 2; this version of dreamportrait reads 1"),
    "unknown": (lambda v: v.update(colour=1), r"config.json has unknown keys \['colour'\]"),
    "unknown in generator": (
        lambda v: v["generator"].update(colour=1),
        r"config.json.generator has unknown keys \['colour'\]",
    ),
    "missing": (lambda v: v["generator"].pop("box_warp"), r"generator lacks \['box_warp'\]"),
    "type": (lambda v: v["generator"].update(z_dim=True), "generator.z_dim must be a whole number .*, got True"),
    "choice": (
        lambda v: v["generator"].update(plane_axes="new"),
        "plane_axes must be 'official' or 'xy_yz_zx' or 'fixed', got 'new'",
    ),
    "union": (
        lambda v: v["generator"].update(ray_start="soon"),
        "ray_start must be a finite number or 'auto', got 'soon'",
    ),
    "tuple": (lambda v: v["generator"].update(camera_pivot=[1, 2]), "camera_pivot must be a list of 3 values"),
    "nested": (
        lambda v: v["generator"].update(superresolution=7),
        "generator.superresolution must be an object, got 7",
    ),
    "rule": (lambda v: v["generator"].update(plane_resolution=100), "power of two"),
    "impossible": (lambda v: v["generator"].update(w_dim=0), "w_dim must be at least 1, got 0"),
    "source": (lambda v: v.update(source="web"), "config.json.source must be an object or null, got 'web'"),
    "shapes": (
        lambda v: v["generator"].update(z_dim=16),
        r"fc0.weight is float32 \[512, 544\], not float32 \[512, 528\]",
    ),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_bad_configs(copied, case):
    change, message = BAD_CONFIGS[case]
    values = json.loads((copied / "config.json").read_text())
    change(values)
    (copied / "config.json").write_text(json.dumps(values))
    with pytest.raises(WeightsError, match=message):
        load_generator(copied)


def test_bad_weights(copied):
    load_generator(copied)
    weights = copied / "generator.safetensors"
    tensors = safetensors.torch.load_file(weights)
    tensors["backbone.mapping.fc9.bias"] = tensors.pop("backbone.mapping.fc1.bias")
    safetensors.torch.save_file(tensors, weights)
    with pytest.raises(WeightsError, match=r"generator.safetensors .* missing: .*fc1.bias; unexpected: .*fc9.bias"):
        load_generator(copied)
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="no safetensors file, or is damaged"):
        load_generator(copied)
    weights.unlink()
    with pytest.raises(WeightsError, match="generator.safetensors is not there"):
        load_generator(copied)
    (copied / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="config.json is no JSON"):
        load_eg3d_config(copied)
    (copied / "config.json").unlink()
    with pytest.raises(WeightsError, match="config.json is not there"):
        load_eg3d_config(copied)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("half", [False, True])
def test_weights_that_are_not_finite(copied, value, half):
    weights = copied / "generator.safetensors"
    tensors = safetensors.torch.load_file(weights)
    tensors["backbone.mapping.fc1.bias"][0] = value
    safetensors.torch.save_file({k: x.half() if half else x for k, x in tensors.items()}, weights)
    with pytest.raises(WeightsError, match=r"generator.safetensors holds NaN or infinite values in .*mapping.fc1.bias"):
        load_generator(copied)


@pytest.mark.parametrize("name", ["mapping_layers", "plane_resolution", "render_resolution", "num_coarse"])
def test_numbers_that_would_take_minutes(copied, name):
    values = json.loads((copied / "config.json").read_text())
    values["generator"][name] = 65536
    (copied / "config.json").write_text(json.dumps(values))
    with pytest.raises(WeightsError, match=f"config.json.generator: {name}=65536: (at most|must be .* from 4 to 8192)"):
        load_generator(copied)


def test_long_values_are_shortened_in_messages(copied):
    values = json.loads((copied / "config.json").read_text())
    values["generator"]["z_dim"] = list(range(10_000))
    values |= {f"more{i}": i for i in range(10_000)}
    for change in (values, {name: values[name] for name in values if not name.startswith("more")}):
        (copied / "config.json").write_text(json.dumps(change))
        with pytest.raises(WeightsError) as error:
            load_generator(copied)
        assert len(str(error.value)) < 600
