"""Tests of the sources of diffusion models: names, the order of mirrors, folders, offline use, layouts."""

import logging
import shutil
import socket
from pathlib import Path

import pytest
from diffusion_folders import change_json, write_own

from dreamportrait.core.errors import WeightsError
from dreamportrait.weights import diffusion_sources, registry
from dreamportrait.weights.diffusion import LayoutError, read_layout
from dreamportrait.weights.diffusion_sources import DIFFUSION, SourceError, diffusion_repositories, locate_diffusion
from dreamportrait.weights.seals import seal

FIRST, SECOND, THIRD = DIFFUSION["sd-2.0-base"].repositories


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_own(tmp_path_factory.mktemp("own"))


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "folder")


class Hub:
    """A stand-in for the hub: what can be downloaded, what is cached, and a record of every request."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.online: dict[str, Path] = {}
        self.cached: dict[str, Path] = {}
        self.asked: list[tuple[str, bool]] = []
        monkeypatch.setattr(diffusion_sources, "_fetch", self.fetch)

    def fetch(self, repository: str, cached: bool) -> Path:
        self.asked.append((repository, cached))
        there = self.cached if cached else self.online
        if repository not in there:
            raise OSError(f"404 for {repository}\nsecond line")
        return there[repository]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    return Hub(monkeypatch)


@pytest.fixture
def real(folder: Path) -> Path:
    """Return a folder that passes the checks for a mirror of 2.0-base."""
    change_json(folder / "unet" / "config.json", cross_attention_dim=1024, sample_size=64)
    return folder


# Mirrors.


@pytest.mark.lengthy
def test_mirrors_are_tried_in_order(hub: Hub, real: Path, caplog: pytest.LogCaptureFixture) -> None:
    hub.online = {SECOND: real, THIRD: real}
    assert locate_diffusion("sd-2.0-base") == real
    assert [name for name, cached in hub.asked if not cached] == [FIRST, SECOND]
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        f"sd-2.0-base could not be read from {FIRST}: OSError: 404 for {FIRST}"
    ]


def test_a_copy_on_this_machine_is_taken_before_any_download(hub: Hub, real: Path) -> None:
    hub.cached, hub.online = {THIRD: real}, {FIRST: real}
    assert locate_diffusion("sd-2.0-base") == real
    assert hub.asked == [(FIRST, True), (SECOND, True), (THIRD, True)]


def test_offline_never_downloads(hub: Hub, real: Path) -> None:
    hub.online = {FIRST: real}
    with pytest.raises(SourceError, match="'sd-2.0-base' was not found") as caught:
        locate_diffusion("sd-2.0-base", offline=True)
    message = str(caught.value)
    assert all(f"{name}: OSError: 404 for {name};" in message.replace(". offline", ";") for name in (FIRST, SECOND))
    assert "offline, only complete copies on this machine are used" in message and "second line" not in message
    assert all(cached for _, cached in hub.asked)


def test_nothing_anywhere_lists_all_that_was_tried(hub: Hub) -> None:
    with pytest.raises(SourceError, match=f"{FIRST}.*{SECOND}.*{THIRD}.*check the connection"):
        locate_diffusion("sd-2.0-base")


def test_a_mirror_with_another_model_or_a_broken_one_is_passed_over(hub: Hub, real: Path, tmp_path: Path) -> None:
    other, broken = (shutil.copytree(real, tmp_path / name) for name in ("other", "broken"))
    change_json(other / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    (broken / "vae" / "diffusion_pytorch_model.safetensors").write_text("<!doctype html>")
    hub.online = {FIRST: other, SECOND: broken, THIRD: real}
    assert locate_diffusion("sd-2.0-base") == real
    hub.online.pop(THIRD)
    message = r"are \(1024, 'v_prediction', 64\), but sd-2.0-base has \(1024, 'epsilon', 64\); .*cannot be read"
    with pytest.raises(SourceError, match=message):
        locate_diffusion("sd-2.0-base")


def test_any_repository_and_any_folder(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.online = {"me/my-model": folder}
    assert locate_diffusion("me/my-model") == folder
    hub.asked.clear()
    assert locate_diffusion(str(folder)) == folder
    monkeypatch.chdir(folder.parent)
    assert locate_diffusion("./folder") == Path("folder")
    assert not hub.asked


def test_the_hubs_own_client_stays_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With an empty cache, the hub's client finds nothing and does not access the network."""
    import huggingface_hub.constants

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket, "socket", refused)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SourceError, match="LocalEntryNotFoundError") as caught:
        locate_diffusion("sd-1.5", offline=True)
    assert all(name in str(caught.value) for name in DIFFUSION["sd-1.5"].repositories)
    assert "asked the network" not in str(caught.value)


@pytest.mark.parametrize(
    "source", ["sd-3", "mini/clip-a", "mini/nothing", "/no/such/folder", "", "a/b/c", "http://x/y"]
)
def test_what_is_nothing_is_refused_without_asking(hub: Hub, source: str) -> None:
    with pytest.raises(
        SourceError, match=r"is no folder, no name .mini/diffusion, mini/.*, sd-2.0-base, sd-2.1-base, sd-1.5, instr"
    ):
        diffusion_repositories(source)
    with pytest.raises(WeightsError):
        locate_diffusion(source)
    assert not hub.asked


def test_the_miniature_one_is_verified(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.resources, "files", lambda package: folder.parent)
    installed = shutil.copytree(folder, folder.parent / "mini" / "weights" / "diffusion")
    seal(installed)
    assert locate_diffusion("mini/diffusion") == installed
    change_json(installed / "unet" / "config.json", sample_size=8)
    with pytest.raises(WeightsError, match="changed: 'unet/config.json'"):
        locate_diffusion("mini/diffusion")


# The layout.


def test_a_whole_layout(folder: Path) -> None:
    layout = read_layout(folder)
    assert layout.variants == {"unet": None, "vae": None, "text_encoder": None}
    assert (layout.words, layout.text_width, layout.sample_size, layout.prediction) == (None, 16, 16, "epsilon")
    for part in ("unet", "vae"):
        weights = folder / part / "diffusion_pytorch_model.safetensors"
        weights.rename(weights.with_suffix(".fp16.safetensors"))
    assert read_layout(folder).variants == {"unet": "fp16", "vae": "fp16", "text_encoder": None}


@pytest.mark.lengthy
def test_everything_that_is_missing_is_listed(folder: Path) -> None:
    shutil.rmtree(folder / "scheduler")
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):  # transformers 4 writes all three
        (folder / "tokenizer" / name).unlink(missing_ok=True)
    (folder / "text_encoder" / "model.safetensors").rename(folder / "text_encoder" / "pytorch_model.bin")
    (folder / "unet" / "config.json").write_text("[")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    change_json(folder / "vae" / "config.json", _class_name="AutoencoderTiny")
    with pytest.raises(LayoutError) as caught:
        locate_diffusion(str(folder))
    message = str(caught.value)
    for part in (
        f"{folder} is no Stable Diffusion folder of diffusers: ",
        "missing scheduler/scheduler_config.json",
        "missing tokenizer/tokenizer.json (or vocab.json and merges.txt)",
        "missing text_encoder/model.safetensors (pytorch_model.bin is a pickle and never read",
        "unet/config.json is no JSON",
        "vae/diffusion_pytorch_model.safetensors cannot be read",
        "a pointer of git-lfs: fetch it again",
        "vae/config.json is of a 'AutoencoderTiny', not of a AutoencoderKL",
    ):
        assert part in message


@pytest.mark.lengthy
def test_other_kinds_of_folder(folder: Path, tmp_path: Path) -> None:
    change_json(folder / "scheduler" / "scheduler_config.json", prediction_type="sample")
    change_json(folder / "unet" / "config.json", cross_attention_dim=[16, 16])
    message = (
        r"prediction_type 'sample' is none of epsilon, v_prediction; .*cross_attention_dim=\[16, 16\] is no positive"
    )
    with pytest.raises(LayoutError, match=message):
        read_layout(folder)
    (tmp_path / "v1-5.safetensors").write_text("?")
    with pytest.raises(LayoutError, match="is a file; a folder of diffusers is needed: convert it"):
        locate_diffusion(str(tmp_path / "v1-5.safetensors"))
    with pytest.raises(
        LayoutError, match="missing unet/diffusion_pytorch_model.safetensors; .*missing vae/config.json"
    ):
        read_layout(tmp_path)


def test_the_old_layout_of_a_tokenizer(folder: Path) -> None:
    (folder / "tokenizer" / "tokenizer.json").unlink()
    for name in ("vocab.json", "merges.txt"):
        (folder / "tokenizer" / name).write_text("{}")
    read_layout(folder)
