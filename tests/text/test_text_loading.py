"""Tests of loading CLIP models by source, without a network."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import open_clip
import pytest
import safetensors.torch
import torch
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer

from dreamportrait.core.errors import WeightsError
from dreamportrait.text.encoder import TextEncoder
from dreamportrait.text.loading import empty_clip, load_clip, load_text_encoder, text_width
from dreamportrait.weights.registry import locate

VISION = {"image_size": 32, "width": 16, "layers": 1, "head_width": 8, "patch_size": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 3}
PROMPTS = ["a woman with red hair", ""]


@pytest.fixture(scope="module")
def model() -> CLIP:
    torch.manual_seed(0)
    return CLIP(8, dict(VISION), dict(TEXT)).eval().requires_grad_(False)


@pytest.fixture
def folder(model, tmp_path) -> Path:
    """Return a folder with the layout in which open_clip publishes models."""
    config = {"model_cfg": {"embed_dim": 8, "vision_cfg": VISION, "text_cfg": TEXT}, "preprocess_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    safetensors.torch.save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    return tmp_path


@pytest.mark.lengthy
def test_folder(model, folder):
    encoder = load_text_encoder(str(folder), offline=True)
    expected = TextEncoder(model, SimpleTokenizer()).encode(PROMPTS)
    assert torch.equal(encoder.encode(PROMPTS).words, expected.words)
    assert encoder.tower.parts.visual is None  # not needed for text
    clip = load_clip(str(folder))
    assert not clip.model.training and not any(p.requires_grad for p in clip.model.parameters())
    assert torch.equal(clip.model.state_dict()["visual.proj"], model.state_dict()["visual.proj"])


def test_a_folder_with_a_small_clip_is_one(tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(locate("mini/clip-a") / name, tmp_path)
    assert text_width(str(tmp_path)) == text_width("mini/clip-a")
    shipped, trained = (load_text_encoder(source).encode(PROMPTS) for source in ("mini/clip-a", str(tmp_path)))
    assert torch.equal(trained.words, shipped.words)
    sizes = [{n: p.shape for n, p in empty_clip(each).named_parameters()} for each in ("mini/clip-a", str(tmp_path))]
    assert sizes[0] == sizes[1] == {n: p.shape for n, p in load_clip(str(tmp_path)).model.named_parameters()}


@pytest.fixture
def created(model, monkeypatch) -> list[tuple]:
    """Return the list of models that open_clip is asked to build."""
    asked: list[tuple] = []

    def create(*name: str, **settings: object) -> CLIP:
        asked.append((*name, settings))
        return model

    monkeypatch.setattr(open_clip, "create_model", create)
    return asked


def test_model_and_file(model, folder, created):
    path = str(folder / "open_clip_model.safetensors")
    clip = load_clip(f"ViT-H-14:{path}")
    assert clip.model is model and isinstance(clip.tokenizer, SimpleTokenizer)
    assert created == [("ViT-H-14", {"pretrained": path, "force_quick_gelu": False, "require_pretrained": True})]


def test_what_cannot_be_loaded_is_named(folder):
    (folder / "open_clip_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(WeightsError, match=f"CLIP {folder} cannot be loaded"):
        load_clip(str(folder))
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(WeightsError, match="has no open_clip_model.safetensors; give a name of the registry"):
        load_clip(str(folder))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing", "'nothing' is no folder, and no model and weights of open_clip; give a name of the registry"),
        ("ViT-H-14", "'ViT-H-14' is no folder, and no model and weights of open_clip"),
        ("ViT-H-14:best", "ViT-H-14 has no weights 'best'; give a .safetensors file or one of laion2b_s32b_b79k"),
        ("ViT-H-14:gone.safetensors", "gone.safetensors is not there"),
    ],
)
def test_unknown_sources(source, message):
    with pytest.raises(WeightsError, match=message):
        load_clip(source)


def test_hub(monkeypatch):
    """Weights are safetensors of the repository that open_clip names; offline, only the cache is searched."""
    asked = []

    def not_there(repository: str, file: str, local_files_only: bool) -> str:
        asked.append((repository, file, local_files_only))
        raise FileNotFoundError("no route to host")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", not_there)
    with pytest.raises(WeightsError, match="is not in the hub's cache, and nothing may be fetched .offline.; run once"):
        load_clip("ViT-H-14:laion2b_s32b_b79k", offline=True)
    with pytest.raises(WeightsError, match="unavailable: no route to host; run once online, or download it and give"):
        load_clip("ViT-H-14:laion2b_s32b_b79k")
    repository, file = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "open_clip_model.safetensors"
    assert asked == [(repository, file, True), (repository, file, False)]


def test_openai_weights_come_with_their_activation(created, monkeypatch):
    """OpenAI's weights were trained with an approximate GELU, which open_clip's ViT-L-14 uses only on request."""
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *args, **settings: "weights.safetensors")
    load_clip("ViT-L-14:openai")
    (_, settings) = created[0]
    assert settings["force_quick_gelu"] is True and settings["pretrained"] == "weights.safetensors"
