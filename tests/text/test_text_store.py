"""Tests of text features on disk: equality with direct encoding, rejected stores, datasets/encode_captions.py."""

import importlib.util
import json
import pickle
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from places import ROOT

from dreamportrait.core.errors import WeightsError
from dreamportrait.data.writing import Sample, write_dataset
from dreamportrait.geometry.cameras import camera_label, intrinsics_from_fov, official_pose
from dreamportrait.text.encoder import TextEncoder, TextFeatures
from dreamportrait.text.store import TextStore, is_store_of, write_store

SCRIPT = ROOT / "datasets" / "encode_captions.py"
WIDTH = 16
CAPTIONS = [
    "a woman with red hair",
    "an old man wearing a blue hat and glasses, on a white background",
    "",
    "a woman with red hair",
    "un homme âgé 😀",
    "hat " * 75,
]
LENGTHS = [7, 16, 2, 7, None, 77]


def make_encoder(seed: int = 0) -> TextEncoder:
    torch.manual_seed(seed)
    vision = {"image_size": 32, "width": 16, "layers": 1, "head_width": 8, "patch_size": 16}
    model = CLIP(8, vision, {"context_length": 77, "vocab_size": 49408, "width": WIDTH, "heads": 2, "layers": 3})
    return TextEncoder(model.eval().requires_grad_(False), SimpleTokenizer())


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return make_encoder()


@pytest.fixture(scope="module")
def folder(encoder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stores") / "a" / "b"
    write_store(folder, encoder, "tiny", CAPTIONS, batch=2)
    return folder


@pytest.fixture
def own(folder, tmp_path) -> Path:
    """Return a copy of the store, which a test may damage."""
    return Path(shutil.copytree(folder, tmp_path / "store"))


def assert_same(stored: TextFeatures, direct: TextFeatures) -> None:
    """Compare stored with direct features.

    Half precision rounds by up to 2^-11 of a value; padding to another length adds round-off of 1e-6.
    """
    assert torch.equal(stored.mask, direct.mask)
    assert stored.words.dtype == stored.eot.dtype == torch.float32
    expected = torch.where(direct.mask[..., None], direct.words, 0.0)
    torch.testing.assert_close(stored.words, expected, rtol=2**-11, atol=1e-5)
    torch.testing.assert_close(stored.eot, direct.eot, rtol=2**-11, atol=1e-5)


@pytest.mark.parametrize("batch", [[0], [2], [1, 0, 2], [5, 2, 4, 0], [3, 3]])
def test_batches_equal_direct_encoding(encoder, folder, batch):
    prompts = [CAPTIONS[i] for i in batch]
    assert_same(TextStore(folder).encode(prompts), encoder.encode(prompts, shorten=True))


def test_true_lengths_only_and_each_caption_once(folder):
    store = TextStore(folder)
    assert store.captions == [*CAPTIONS[:3], *CAPTIONS[4:]] and len(store) == 5
    lengths = [int(store.features([i]).mask.sum()) for i in store.indices(CAPTIONS)]
    assert all(found == wanted for found, wanted in zip(lengths, LENGTHS, strict=True) if wanted)
    words = np.load(folder / "words.npy", mmap_mode="r")
    assert words.dtype == np.float16 and words.shape == (sum(lengths) - LENGTHS[3], WIDTH)
    assert sorted(path.name for path in folder.iterdir()) == ["captions.json", "config.json", "ends.npy", "words.npy"]


def test_numbers_are_those_of_the_captions(folder):
    store = TextStore(folder, "tiny", CAPTIONS)
    numbers = store.indices(["", CAPTIONS[3]])
    assert numbers == [2, 0]
    by_number, by_text = store.features(numbers), store.encode(["", CAPTIONS[0]])
    assert torch.equal(by_number.words, by_text.words)
    for wrong, error in ([], ValueError), ([5], IndexError), ([-1], IndexError):
        with pytest.raises(error):
            store.features(wrong)


def test_batches_while_encoding_do_not_matter(encoder, folder, tmp_path):
    write_store(tmp_path / "store", encoder, "tiny", CAPTIONS, batch=100)
    for name in ("config.json", "captions.json", "ends.npy"):
        assert (tmp_path / "store" / name).read_bytes() == (folder / name).read_bytes()
    one, other = (np.load(place / "words.npy").astype(np.float32) for place in (folder, tmp_path / "store"))
    np.testing.assert_allclose(one, other, rtol=2**-10, atol=1e-5)  # round-off may change the nearest float16


def test_it_is_mapped_and_not_read(folder):
    store = TextStore(folder)
    assert isinstance(store._words, np.memmap) and not store._words.flags.writeable


def test_processes_that_get_a_store_map_it_themselves(folder):
    store = TextStore(folder)
    sent = pickle.dumps(store)
    assert len(sent) < (folder / "words.npy").stat().st_size
    received = pickle.loads(sent)
    assert isinstance(received._words, np.memmap)
    assert torch.equal(received.features(range(5)).words, store.features(range(5)).words)


# Rejected stores.


def test_other_models_and_captions_are_refused(folder):
    with pytest.raises(WeightsError, match="holds features of tiny, not of ViT-H-14.*; encode the captions again with"):
        TextStore(folder, "ViT-H-14:laion2b_s32b_b79k")
    with pytest.raises(WeightsError, match="has no features of 2 of 3 captions: 'a hat', 'a dog'; encode"):
        TextStore(folder, "tiny", ["a hat", "", "a dog"])
    with pytest.raises(WeightsError, match="has no features of 1 of 1 captions"):
        TextStore(folder).encode(["A woman with red hair"])


@pytest.mark.parametrize("name", ["config.json", "captions.json", "words.npy", "ends.npy"])
@pytest.mark.parametrize("how", ["removed", "cut"])
def test_damaged_stores_are_named(own, name, how):
    path = own / name
    if how == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(WeightsError, match=name):
        TextStore(own)


def test_what_does_not_fit_together_is_named(own):
    captions = json.loads((own / "captions.json").read_text())
    (own / "captions.json").write_text(json.dumps(captions[::-1]))
    with pytest.raises(WeightsError, match="captions.json is not as it was written"):
        TextStore(own)
    (own / "captions.json").write_text(json.dumps(captions))
    np.save(own / "ends.npy", np.load(own / "ends.npy")[:-1])
    with pytest.raises(WeightsError, match=r"\[4\] ends and 5 captions do not fit together"):
        TextStore(own)
    np.save(own / "ends.npy", np.zeros(5, np.float32))
    with pytest.raises(WeightsError, match="ends.npy holds float32, not int64"):
        TextStore(own)


@pytest.mark.lengthy
def test_its_key(encoder, folder, own):
    """The key is the model's name and weights, the layer, and the distinct captions; repetition does not change it."""
    assert is_store_of(folder, encoder, "tiny", CAPTIONS)
    assert is_store_of(folder, encoder, "tiny", [*CAPTIONS, CAPTIONS[2]])
    assert not is_store_of(folder, encoder, "other", CAPTIONS)
    assert not is_store_of(folder, encoder, "tiny", CAPTIONS[:-1])
    assert not is_store_of(folder, make_encoder(1), "tiny", CAPTIONS)
    (own / "words.npy").unlink()
    assert not is_store_of(own, encoder, "tiny", CAPTIONS)


class Failing:
    """An encoder that is interrupted after `calls` calls."""

    def __init__(self, encoder: TextEncoder, calls: int) -> None:
        self.encoder, self.calls = encoder, calls
        self.tower, self.tokenizer = encoder.tower, encoder.tokenizer

    def encode(self, prompts: list[str], shorten: bool = True) -> TextFeatures:
        if not self.calls:
            raise KeyboardInterrupt
        self.calls -= 1
        return self.encoder.encode(prompts, shorten)


def test_interrupted_encoding_leaves_nothing(encoder, own):
    """An interrupted encoding leaves no new folder behind and keeps an existing store."""
    parent = own.parent
    with pytest.raises(KeyboardInterrupt):
        write_store(parent / "new", Failing(encoder, 1), "tiny", CAPTIONS, batch=2)
    with pytest.raises(KeyboardInterrupt):
        write_store(own, Failing(encoder, 1), "tiny", CAPTIONS, batch=2, overwrite=True)
    assert [path.name for path in parent.iterdir()] == [own.name]
    assert is_store_of(own, encoder, "tiny", CAPTIONS)


def test_only_stores_are_overwritten(encoder, own):
    with pytest.raises(WeightsError, match="exists and is not empty"):
        write_store(own, encoder, "tiny", ["a hat"])
    write_store(own, encoder, "tiny", ["a hat"], overwrite=True)
    assert TextStore(own).captions == ["a hat"]
    (own / "notes.txt").write_text("mine")
    with pytest.raises(WeightsError, match="holds other files"):
        write_store(own, encoder, "tiny", ["a hat"], overwrite=True)
    with pytest.raises(ValueError, match="captions is empty"):
        write_store(own.parent / "none", encoder, "tiny", [])


def test_values_that_halves_cannot_hold(tmp_path):
    encoder = make_encoder()
    encoder.tower.parts.ln_final.weight.data.fill_(1e6)
    with pytest.raises(ValueError, match="beyond half precision"):
        write_store(tmp_path / "store", encoder, "tiny", CAPTIONS)
    assert not list(tmp_path.iterdir())


# The script.


@pytest.fixture
def dataset(tmp_path) -> Path:
    camera = camera_label(official_pose(), intrinsics_from_fov(18.8))[0].numpy()
    image = np.zeros((3, 8, 8), np.uint8)
    samples = [Sample(image, camera, ["a hat", "a face"], "one hat"), Sample(image, camera, ["a face"], "")]
    write_dataset(tmp_path / "data", samples)
    return tmp_path / "data"


@pytest.fixture
def script(encoder, monkeypatch) -> ModuleType:
    """Load the script with a CLIP that needs no weights."""
    spec = importlib.util.spec_from_file_location("encode_captions", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr("dreamportrait.text.loading.load_text_encoder", lambda source, offline, device: encoder)
    return module


def run(script: ModuleType, *arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(script.main, [*map(str, arguments), "--device", "cpu"])
    return result.exit_code, result.output


def test_script(script, dataset, encoder, tmp_path):
    out = tmp_path / "features"
    code, output = run(script, dataset, out)
    assert code == 0 and f"wrote {out}: 4 different captions" in output
    store = TextStore(out, "mini/clip-a", ["a hat", "a face", "one hat", ""])
    assert_same(store.encode(["one hat"]), encoder.encode(["one hat"], shorten=True))
    written = (out / "words.npy").stat().st_mtime_ns
    assert run(script, dataset, out) == (0, f"{out} holds these features already\n")
    # The data set's captions.jsonl alone gives the same result.
    code, output = run(script, dataset / "captions.jsonl", out)
    assert code == 0 and "already" in output
    assert (out / "words.npy").stat().st_mtime_ns == written
    code, output = run(script, dataset, out, "--clip", "mini/clip-b")
    assert code == 1 and "exists and is not empty" in output
    assert run(script, dataset, out, "--clip", "mini/clip-b", "--overwrite")[0] == 0
    assert TextStore(out).config.clip == "mini/clip-b"


def test_sample_prompts_are_stored_with_the_captions(script, dataset, tmp_path):
    (tmp_path / "c.yaml").write_text(
        "run: {name: x}\ndata: {kind: miniworld}\nstages: [{name: a, images: 32}]\nsamples: {prompts: [a blue hat]}"
    )
    code, output = run(script, dataset, tmp_path / "out", "--config", tmp_path / "c.yaml")
    assert code == 0 and "5 different captions" in output
    assert "a blue hat" in TextStore(tmp_path / "out").captions


@pytest.mark.parametrize(
    "line",
    ["", "[]", '{"captions": "a", "evaluation": ""}', '{"captions": ["a"]}', '{"captions": [1], "evaluation": ""}'],
)
def test_script_names_lines_that_are_no_captions(script, tmp_path, line):
    path = tmp_path / "captions.jsonl"
    path.write_text('{"file": "a", "captions": ["a hat"], "evaluation": "hat"}\n' + line + "\n")
    code, output = run(script, path, tmp_path / "out")
    assert code == 1 and "captions.jsonl, line 2: must be" in output
    code, output = run(script, tmp_path / "none.jsonl", tmp_path / "out")
    assert code == 1 and "none.jsonl" in output
