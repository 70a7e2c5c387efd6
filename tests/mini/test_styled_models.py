"""Tests of the trainings of the models of styled heads, at sizes that run in seconds."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from random_world import random_pool, random_styled_world
from torch import Tensor

from dreamportrait.core.errors import WeightsError
from dreamportrait.metrics import style_oracle as reading
from dreamportrait.metrics.style_oracle import ANSWERS, PITCH_UNIT, StyleReader
from dreamportrait.mini import clip_training, ip2p, style_oracle, style_scores, styled_clip
from dreamportrait.mini.augmentation import augment
from dreamportrait.mini.clip_training import CONFIGS, token_ids
from dreamportrait.mini.diffusion import styled
from dreamportrait.mini.diffusion.evaluation import psnr, reconstruct
from dreamportrait.mini.diffusion.folder import load_diffusion, load_vae, make_scheduler, save_unet, save_vae
from dreamportrait.mini.diffusion.unet import make_unet
from dreamportrait.mini.diffusion.vae import encode_all, make_vae
from dreamportrait.mini.ip2p import Triples, editing_loss, focus
from dreamportrait.mini.oracle import HIDDEN
from dreamportrait.mini.style_oracle import Truth, pitches
from dreamportrait.mini.styled_clip import StyledClipTraining, instruction, new_text
from dreamportrait.miniworld import edit_pool
from dreamportrait.miniworld.attributes import ATTRIBUTES, make_attributes
from dreamportrait.miniworld.edits import draw_edit
from dreamportrait.miniworld.styled_captions import Seen
from dreamportrait.miniworld.styled_world import cameras
from dreamportrait.miniworld.styles import style
from dreamportrait.systems.freestyle.instruct import with_picture
from dreamportrait.text.compact_clip import tokenizer

WIDTH, LENGTH = 8, 5
SMALL = (8, 16)


def embed(prompts: list[str]) -> Tensor:  # [N, LENGTH, WIDTH]
    """Return features that depend on the prompt alone, in place of a text tower."""
    seeds = [sum(prompt.encode()) for prompt in prompts]
    return torch.stack([torch.randn(LENGTH, WIDTH, generator=torch.Generator().manual_seed(s)) for s in seeds])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of diffusers with tiny random networks."""
    torch.manual_seed(0)
    save_vae(make_vae((2, 4, 6)), tmp_path / "start")
    save_unet(make_unet(WIDTH, SMALL), tmp_path / "start")
    return tmp_path / "start"


# The CLIPs.


def test_every_text_is_made_of_known_tokens() -> None:
    world, rng = random_styled_world(60), np.random.default_rng(0)
    texts = [new_text(world.seen(i % 60), rng) for i in range(300)]
    texts += [world.evaluation_caption(i) for i in range(60)] + [draw_edit("train", i).instruction for i in range(20)]
    assert {token for text in texts for token in tokenizer().encode(text)} <= set(token_ids(styled=True))
    assert set(token_ids()) < set(token_ids(styled=True))


def test_instructions_ask_for_what_the_picture_shows() -> None:
    rng = np.random.default_rng(0)
    bare = Seen(make_attributes(gender="man", hair_style="bald", hat="cap", hat_color="red"), None, 0.0)
    asked = {instruction(bare, rng) for _ in range(300)}
    assert {"give it a red hat", "without glasses", "make it bald"} <= asked
    assert not any("blue hat" in text or "remove the hat" in text or "statue" in text for text in asked)
    statue = replace(bare, style=style("gold statue"), yaw=150.0)
    told = {instruction(statue, rng) for _ in range(300)}
    assert all("gold" in text for text in told)
    assert not any("glasses" in text or "red" in text for text in told)  # neither is to be seen


def test_pictures_of_captions_that_say_left_are_not_mirrored() -> None:
    images = torch.linspace(-1, 1, 64).expand(16, 3, 64, 64)  # brighter to the right
    torch.manual_seed(0)
    kept = augment(images, mirrored=False, blurred=0)
    assert (kept[..., 40:].mean((1, 2, 3)) > kept[..., :24].mean((1, 2, 3))).all()
    torch.manual_seed(0)
    turned = augment(images, blurred=0)
    assert not (turned[..., 40:].mean((1, 2, 3)) > turned[..., :24].mean((1, 2, 3))).all()
    run = StyledClipTraining.varied(object.__new__(StyledClipTraining), images)
    assert (run[..., 40:].mean((1, 2, 3)) > run[..., :24].mean((1, 2, 3))).all()


@pytest.mark.lengthy
@pytest.mark.parametrize("variant", ["s", "t"])
def test_a_clip_is_trained_and_scored(variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {
        "s": replace(CONFIGS["s"], vision_width=8, text_width=16, text_layers=2, embed_dim=16),
        "t": replace(CONFIGS["t"], vision_width=32, vision_layers=1, text_width=16, embed_dim=16),
    }
    monkeypatch.setattr(clip_training, "CONFIGS", small)
    world = random_styled_world(20)
    styled_clip.train(variant, tmp_path / "clip", tmp_path / "work", world, world, steps=2, batch=4)
    notes = json.loads((tmp_path / "clip/config.json").read_text())
    assert notes["name"] == f"clip-{variant}" and notes["scores"]["candidates"] == 20
    assert styled.words_of(tmp_path / "clip")(["turn the head into a gold statue"]).shape == (1, 77, 16)


def test_variants_of_clip(tmp_path: Path) -> None:
    world = random_styled_world(1)
    with pytest.raises(ValueError, match="variant='a': must be one of s, t"):
        styled_clip.train("a", tmp_path / "out", tmp_path / "work", world, world)


# The style oracle.


def test_angles_of_cameras() -> None:
    labels = cameras(np.array([[0.0, 0.0], [35.0, 20.0], [-170.0, -12.0]]))
    torch.testing.assert_close(pitches(labels), torch.tensor([0.0, 20.0, -12.0]).double(), atol=1e-3, rtol=0)


def test_what_a_picture_does_not_show_is_not_learnt() -> None:
    world = random_styled_world(40)
    truth = Truth(world)
    for i in range(40):
        seen, row = world.seen(i), dict(zip(ATTRIBUTES, truth.classes[i].tolist(), strict=True))
        assert ANSWERS[truth.style[i]] == (seen.style.name if seen.style else "plain")
        assert {name for name, value in row.items() if value != HIDDEN} == set(seen.visible())
        if abs(seen.yaw) > 110:
            assert row["gender"] == row["expression"] == row["eyewear"] == HIDDEN
        if seen.style and seen.style.name == "gold statue":
            assert row["skin"] == row["clothes"] == HIDDEN
    assert (truth.classes != HIDDEN).float().mean() > 0.3


def test_it_reads_what_its_network_says(monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = StyleReader().eval().requires_grad_(False)
    oracle.heads.weight.zero_()
    oracle.heads.bias.zero_()
    oracle.heads.bias[ANSWERS.index("elf")] = 1
    oracle.heads.bias[len(ANSWERS) + 1] = 1  # the second value of the first attribute
    oracle.heads.bias[-3:] = torch.tensor([0.5, -0.5 * 3**0.5, 10 / PITCH_UNIT])
    found = oracle.read(torch.zeros(3, 3, 32, 32))
    assert found.styles == ["elf"] * 3 and found.faces[0]["gender"] == "man" and found.faces[0]["age"] == "young"
    torch.testing.assert_close(found.yaw, torch.full((3,), 150.0))
    torch.testing.assert_close(found.pitch, torch.full((3,), 10.0))


@pytest.mark.lengthy
def test_the_style_oracle_is_trained_and_scored(tmp_path: Path) -> None:
    world = random_styled_world(16)
    style_oracle.train(tmp_path / "out", tmp_path / "work", world, world, steps=2, batch=4)
    config = json.loads((tmp_path / "out/config.json").read_text())
    loaded = reading.load(tmp_path / "out")
    images = torch.from_numpy(world.images).float() / 127.5 - 1
    right = [a == ANSWERS[b] for a, b in zip(loaded.read(images).styles, Truth(world).style, strict=True)]
    assert config["scores"]["style"] == pytest.approx(sum(right) / 16, abs=1e-4)
    config["styles"] = config["styles"][:-1]
    (tmp_path / "out/config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="trained on other attributes or styles"):
        reading.load(tmp_path / "out")


# The diffusion model and the editor.


def test_heads_of_new_styles_stay_out() -> None:
    world = random_styled_world(120)
    kept = styled.seen_heads(world)
    names = {found.name for i in range(len(kept)) if (found := kept.look(i).style)}
    assert names.isdisjoint(styled.UNSEEN) and len(names) > 5 and len(kept) < len(world)
    assert all(len(getattr(kept, name)) == len(kept) for name in ("depth", "codes", "cameras", "yaws", "blurs"))


@pytest.mark.lengthy
def test_vae_unet_and_editor_follow_each_other(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(styled, "words_of", lambda clip: embed)
    monkeypatch.setattr(ip2p, "words_of", lambda clip: embed)
    world = random_styled_world(8)
    styled.tune_vae(folder, tmp_path / "vae", tmp_path / "work-vae", world, steps=1, batch=2)
    before, after = load_vae(folder).state_dict(), load_vae(tmp_path / "vae").state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    parts = folder, tmp_path / "vae", tmp_path
    styled.tune_unet(*parts, tmp_path / "unet", tmp_path / "work-unet", world, steps=1, batch=2)
    unet, vae, _ = load_diffusion(tmp_path / "unet")
    assert all(torch.equal(x, y) for x, y in zip(vae.state_dict().values(), after.values(), strict=True))
    assert json.loads((tmp_path / "unet/config.json").read_text())["text_encoder"] == "mini/clip-s"
    pool = random_pool(6)
    parts, work = (tmp_path / "unet", tmp_path / "vae", tmp_path), tmp_path / "work-ip2p"
    ip2p.train(*parts, tmp_path / "ip2p", work, pool, steps=2, batch=4)
    editor = load_diffusion(tmp_path / "ip2p")[0]
    assert editor.config["in_channels"] == 8 and unet.config["in_channels"] == 4
    assert editor.conv_in.weight[:, 4:].abs().max() > 0


class Scorer:
    """A stand-in for a CLIP: features are numbers of the pixels and of the letters."""

    def image_features(self, images: Tensor) -> Tensor:
        return torch.nn.functional.normalize(images.flatten(1)[:, ::1000] + 0.1, dim=1)

    def text_features(self, prompts: list[str]) -> Tensor:
        return self.image_features(torch.stack([torch.full((12288,), sum(p.encode()) % 7 - 3.0) for p in prompts]))


@pytest.mark.slow
def test_published_models_are_measured(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style_scores, "words_of", lambda clip: embed)
    monkeypatch.setattr(style_scores, "_scorer", lambda path: Scorer())
    monkeypatch.setattr(style_scores.evaluation, "CANDIDATES", 3)
    sizes = {"HEADS": 6, "SAMPLED": 3, "SHOWN": 2, "EDITS": 5, "CHOOSING": 2, "STRENGTHS": (0.5,)}
    quick = tuple(replace(each, steps=2) for each in style_scores.SCALES[:2])
    for name, value in (sizes | {"SCALES": quick}).items():
        monkeypatch.setattr(style_scores, name, value)
    out = tmp_path / "out"
    folder.rename(tmp_path / "start2")
    shutil.copytree(tmp_path / "start2", out / "diffusion-styles")
    shutil.copytree(tmp_path / "start2", out / "ip2p")
    (out / "clip-t").mkdir()
    unet, vae, _ = load_diffusion(tmp_path / "start2")
    save_unet(with_picture(unet), out / "ip2p", styled.TEXT)
    style_oracle.save(StyleReader(), out / "style-oracle", {})
    world, pool = random_styled_world(6, "validation"), random_pool(9, "validation")
    style_scores.write(out, world, pool)
    found = json.loads((out / "ip2p/scores.json").read_text())
    assert found["edits"] == 5 and found["text_scale"] in (1.5, 2.0)
    assert {"editor", "nothing", "exact", "styles_that_diffusion_knows"} < set(found)
    assert 0 <= found["editor"]["kept"] <= 1
    signals = json.loads((out / "diffusion-styles/scores.json").read_text())["vae_psnr"]
    images = torch.from_numpy(world.images).float() / 127.5 - 1
    assert signals["all"] == pytest.approx(psnr(reconstruct(vae, images), images), abs=0.01)
    assert (out / "ip2p/sheet.png").exists() and (out / "diffusion-styles/sheet.png").exists()


def test_an_untaught_editor_draws_as_its_parent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of a fresh editor does not depend on the picture, if all positions count alike."""
    monkeypatch.setattr(ip2p, "FOCUS", 0.0)
    parent = load_diffusion(folder)[0]
    fresh, signal = with_picture(parent).eval(), make_scheduler().alphas_cumprod
    after, words = torch.randn(4, 4, 16, 16), embed(["a", "b", "c", "d"])
    losses = []
    for before in (torch.zeros(4, 4, 16, 16), torch.randn(4, 4, 16, 16)):
        torch.manual_seed(1)
        losses.append(editing_loss(fresh, before, after, words, signal))
    assert torch.equal(*losses)


def test_the_loss_of_an_editor_follows_the_change() -> None:
    before, after = torch.randn(3, 4, 4, 4), torch.zeros(3, 4, 4, 4)
    after[:2] = before[:2]
    after[0, :, 0, :2] += 1  # 2 of 16 positions change
    before[2] = 0
    weights = focus(before, after)
    assert weights.shape == (3, 1, 4, 4)
    torch.testing.assert_close(weights[0, 0, 0], torch.tensor([4.5, 4.5, 0.5, 0.5]))
    assert (weights[1] == 0.5).all() and (weights[2] == 1).all()  # nothing changes; without a picture
    after[1, 0, 0, 0] += 1  # 1 of 16 alone
    assert focus(before, after)[1].max() == pytest.approx(8.5)


def test_an_editor_that_knows_the_result_has_no_loss(folder: Path) -> None:
    """The loss must be that of v = sqrt(a) noise - sqrt(1 - a) latents, in the convention of the sampler."""
    signal = make_scheduler().alphas_cumprod
    before, after = torch.randn(4, 4, 16, 16), torch.randn(4, 4, 16, 16)

    class Knowing(torch.nn.Module):
        def forward(self, x: Tensor, t: Tensor, words: Tensor) -> Any:
            a = signal[t][:, None, None, None]
            noise = (x[:, :4] - a.sqrt() * after) / (1 - a).sqrt()
            v = (noise - (1 - a).sqrt() * x[:, :4]) / a.sqrt()  # from as_noise() of the sampler
            return SimpleNamespace(sample=v)

    assert editing_loss(Knowing(), before, after, embed(["a"] * 4), signal) < 1e-4  # type: ignore[arg-type]


def test_triples_of_latents(folder: Path, tmp_path: Path) -> None:
    pool = random_pool(5)
    triples = Triples.of(pool, folder, embed, tmp_path / "cache")
    vae = load_vae(folder)
    assert triples.latents.shape == (2, 2, 5, 4, 16, 16)
    assert torch.equal(torch.from_numpy(triples.latents[1, 1].copy()), encode_all(vae, pool.after, flip=True))
    again = Triples.of(pool, folder, lambda texts: embed(texts) if len(texts) == 1 else 1 / 0, tmp_path / "cache")
    assert np.array_equal(again.words, triples.words)
    torch.manual_seed(0)
    before, after, words = triples.draw(4000)
    untold = (words == triples.null).all((1, 2))
    unseen = (before == 0).all((1, 2, 3))
    # Shares of 0.1, 0.1 and 0.05; three standard deviations of 4000 draws are 0.014 and 0.01.
    assert abs(untold.float().mean() - 0.1) < 0.014 and abs(unseen.float().mean() - 0.1) < 0.014
    assert abs((untold & unseen).float().mean() - 0.05) < 0.01
    k = int(torch.nonzero(~untold & ~unseen)[0])
    flat = torch.from_numpy(triples.latents.copy()).float()
    place = torch.nonzero((flat[1] == after[k]).all((-3, -2, -1)))[0]
    assert torch.equal(flat[0, place[0], place[1]], before[k])
    assert torch.equal(torch.from_numpy(triples.words[place[1]].copy()).float(), words[k])


def test_a_pool_is_rendered_once_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edit_pool, "PART", 2)
    first = edit_pool.load("validation", 3, tmp_path)
    assert np.array_equal(first.after[2], draw_edit("validation", 2).after())
    files = sorted(path.name for path in tmp_path.rglob("*.npz"))
    assert files == ["000000.npz", "000002.npz"]
    drawn: list[int] = []
    real = edit_pool._write
    monkeypatch.setattr(edit_pool, "_write", lambda path, edits: drawn.append(len(edits)) or real(path, edits))
    more = edit_pool.load("validation", 4, tmp_path)  # only the second file is too short
    assert drawn == [2] and np.array_equal(more.before[:3], first.before)
    assert len(edit_pool.load("validation", 1, tmp_path)) == 1 and drawn == [2]
    with pytest.raises(ValueError, match="count=0"):
        edit_pool.load("validation", 0, tmp_path)
