"""Tests of models on the hub, with a stand-in for it: what is fetched, what is pushed, and the model card."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard
from tiny_pipeline import write_portrait

from dreamportrait.core.errors import WeightsError
from dreamportrait.systems.dreamportrait import hub
from dreamportrait.systems.dreamportrait.folder import FILES
from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline


class Hub:
    """A hub in a folder. A push copies the files there, a download copies those that are asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: dict[str, Any] = {}
        self.said: dict[str, Any] = {}

    def __call__(self, token: str | None = None) -> "Hub":  # HfApi(token=...)
        self.said["token"] = token
        return self

    def create_repo(self, repo_id: str, **settings: Any) -> Any:
        self.said |= settings
        return type("Url", (), {"repo_id": repo_id})()

    def upload_folder(self, repo_id: str, folder_path: Path, **settings: Any) -> str:
        shutil.copytree(folder_path, self.folder / repo_id)
        (self.folder / repo_id / ".gitattributes").write_text("*.safetensors filter=lfs\n")  # every repository has one
        self.said |= settings
        return f"https://hub/{repo_id}/commit/1"

    def snapshot_download(self, repo_id: str, **settings: Any) -> str:
        self.asked = settings
        if not (self.folder / repo_id).is_dir():
            raise huggingface_hub.errors.LocalEntryNotFoundError(f"{repo_id} is not here\nsecond line")
        return str(self.folder / repo_id)


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    stub = Hub(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", stub)
    monkeypatch.setattr("huggingface_hub.snapshot_download", stub.snapshot_download)
    return stub


@pytest.fixture
def pipe(tmp_path: Path) -> DreamPortraitPipeline:
    return DreamPortraitPipeline.from_pretrained(write_portrait(tmp_path / "portrait"))


def test_pushed_and_fetched(pipe: DreamPortraitPipeline, stub: Hub) -> None:
    assert pipe.push_to_hub("me/heads", private=True, token="secret") == "https://hub/me/heads/commit/1"
    assert stub.said["private"] is True and stub.said["token"] == "secret"
    again = DreamPortraitPipeline.from_pretrained("me/heads", revision="v1", token="t", cache_dir="/cache")
    assert torch.equal(again("a man", seed=1).colors, pipe("a man", seed=1).colors)
    assert stub.asked == {
        "allow_patterns": list(FILES),
        "revision": "v1",
        "token": "t",
        "cache_dir": "/cache",
        "local_files_only": False,
    }
    DreamPortraitPipeline.from_pretrained("me/heads", offline=True)
    assert stub.asked["local_files_only"] is True


def test_the_card_may_be_edited_but_not_the_weights(pipe: DreamPortraitPipeline, stub: Hub) -> None:
    pipe.push_to_hub("me/heads")
    folder = stub.folder / "me/heads"
    (folder / hub.CARD).write_text("edited on the hub")
    DreamPortraitPipeline.from_pretrained("me/heads")
    weights = folder / "generator.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(WeightsError, match=r"^me/heads is not as .* changed: 'generator\.safetensors'"):
        DreamPortraitPipeline.from_pretrained("me/heads")


@pytest.mark.parametrize("seal", ["", "[]", '{"files": 3}', None])
def test_a_damaged_seal(pipe: DreamPortraitPipeline, stub: Hub, seal: str | None) -> None:
    pipe.push_to_hub("me/heads")
    path = stub.folder / "me/heads" / "files.json"
    path.unlink() if seal is None else path.write_text(seal)
    with pytest.raises(WeightsError, match="files.json"):
        DreamPortraitPipeline.from_pretrained("me/heads")


def test_a_model_that_the_hub_lacks(stub: Hub) -> None:
    with pytest.raises(WeightsError, match="'no/such': it is neither 'mini' nor a folder.*: no/such is not here$"):
        DreamPortraitPipeline.from_pretrained("no/such")
    with pytest.raises(WeightsError, match=r"nothing may be fetched \(offline\)"):
        DreamPortraitPipeline.from_pretrained("no/such", offline=True)


def test_what_is_a_name_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert hub.is_hub_id("me/heads") and hub.is_hub_id("a-b.c/d_e")
    for other in ("mini", "a/b/c", "/a/b", "./a", "../a", "a/", "a b/c", Path("me/heads")):
        assert not hub.is_hub_id(other), other
    (tmp_path / "me/heads").mkdir(parents=True)
    assert not hub.is_hub_id("me/heads")


def test_a_folder_needs_no_hub(
    pipe: DreamPortraitPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stub: Hub
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me").mkdir()
    pipe.save_pretrained("me/heads")
    DreamPortraitPipeline.from_pretrained("me/heads")
    assert not stub.asked and not stub.said


def test_saved_folders_have_a_card(pipe: DreamPortraitPipeline, tmp_path: Path) -> None:
    assert pipe.save_pretrained(tmp_path / "copy") is None
    card = ModelCard.load(tmp_path / "copy" / hub.CARD)
    assert card.data.library_name == "dreamportrait" and card.data.pipeline_tag == "text-to-3d"
    assert (card.data.license, card.data.license_name) == ("other", "of the tests")
    for part in ("# copy", "| trained from | none |", "this licence: of the tests", 'from_pretrained("copy")', hub.USE):
        assert part in card.text
    assert "made by AI" in hub.USE and "`provenance=False`" in hub.USE
    assert "README.md" in json.loads((tmp_path / "copy/files.json").read_text())["files"]
    pipe.save_pretrained(tmp_path / "copy", overwrite=True)
    assert hub.card_data("Apache-2.0").license == "apache-2.0"


def test_saving_can_push(
    pipe: DreamPortraitPipeline, stub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        address = pipe.save_pretrained(tmp_path / "copy", push_to_hub=True, repo_id="me/heads", private=True)
    assert address == "https://hub/me/heads/commit/1" and stub.said["private"] is True
    assert "a path on this machine" in caplog.text  # the text encoder of the tests is a folder
    assert (tmp_path / "copy" / hub.CARD).read_text() == (stub.folder / "me/heads" / hub.CARD).read_text()
    with pytest.raises(TypeError, match="private: only with push_to_hub=True"):
        pipe.save_pretrained(tmp_path / "other", private=True)
    assert not (tmp_path / "other").exists()
