"""Tests of the shipped weights: sealed, small, loadable and, in slow tests, as good as their cards say."""

from pathlib import Path

import pytest
import torch

from dreamportrait.mini import oracle
from dreamportrait.mini.cards import TOTAL_BYTES
from dreamportrait.mini.diffusion.evaluation import reconstruct, score_samples, score_vae
from dreamportrait.mini.eg3d import evaluation
from dreamportrait.mini.models import from_pretrained
from dreamportrait.miniworld import styled_world
from dreamportrait.miniworld.world import World, load
from dreamportrait.text import compact_clip
from dreamportrait.text.clip_scorer import ClipScorer
from dreamportrait.text.encoder import TextEncoder
from dreamportrait.weights.registry import NAMES, locate

FACES = 600


@pytest.mark.parametrize("name", NAMES)
def test_folders_are_whole(name: str) -> None:
    folder = locate(name)
    card = (folder / "README.md").read_text()
    assert card.startswith(f"# {name}")
    assert "## Scores" in card


def test_they_are_small() -> None:
    files = [path for name in NAMES for path in locate(name).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= TOTAL_BYTES


def test_generator_draws_a_head_with_its_background() -> None:
    generator, discriminator = from_pretrained("mini/eg3d")
    with torch.inference_mode():
        view = evaluation.portraits(generator, 2, seed=0).view(evaluation.front(2))
        logits = discriminator(view.image, view.image_raw, evaluation.front(2))
    middle, corner = view.depth[:, 0, 32, 32], view.depth[:, 0, 2, 2]
    assert (middle < 2.65).all()  # the face is in front of the centre, which is at 2.7
    assert (corner > 2.75).all()
    assert logits.isfinite().all()


# Scores on fewer faces than on the cards. The limits allow for the sampling error of 600 faces.


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return load("test", FACES, tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> World:
    return load("train", FACES, tmp_path_factory.mktemp("others"))


@pytest.fixture(scope="module")
def judge() -> ClipScorer:
    return ClipScorer(*from_pretrained("mini/clip-b"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip-a", "clip-b"])
def test_clips_find_the_right_face(name: str, world: World) -> None:
    from dreamportrait.mini.clip_training import evaluate

    assert evaluate(locate(f"mini/{name}"), world)["caption_to_image"] >= 0.93


@pytest.mark.slow
def test_the_oracle_reads_every_attribute(world: World) -> None:
    images = torch.from_numpy(world.images.copy()).float() / 127.5 - 1
    accuracy = oracle.accuracy(from_pretrained("mini/oracle"), images, world.attributes)
    assert min(accuracy.values()) >= 0.94, accuracy  # 0.95 on 2000 faces


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> styled_world.StyledWorld:
    return styled_world.load("validation", FACES, tmp_path_factory.mktemp("heads"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip-s"])
def test_clips_find_the_right_styled_head(name: str, heads: styled_world.StyledWorld) -> None:
    from dreamportrait.mini.clip_training import evaluate

    assert evaluate(locate(f"mini/{name}"), heads)["caption_to_image"] >= 0.76  # 0.81 on 2000 heads


@pytest.mark.slow
def test_the_style_oracle_reads_styles_and_angles(heads: styled_world.StyledWorld) -> None:
    from dreamportrait.mini.style_oracle import score

    scores = score(from_pretrained("mini/style-oracle"), heads)["scores"]
    assert scores["style"] >= 0.98  # 0.997 on 2000 heads
    assert scores["visible_attributes"] >= 0.97  # 0.983
    assert scores["yaw_error_degrees"] <= 7.0  # 5.5


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "obeyed", "kept"), [("style", 0.85, 0.8), ("attribute", 0.75, 0.85)])
def test_the_editor_obeys_and_keeps_the_rest(kind: str, obeyed: float, kept: float, tmp_path: Path) -> None:
    from dreamportrait.geometry.images import from_bytes
    from dreamportrait.mini import edit_scores
    from dreamportrait.miniworld import edit_pool
    from dreamportrait.systems.freestyle.instruct import Sampling

    pool, oracle = edit_pool.load("validation", 80, tmp_path), from_pretrained("mini/style-oracle")
    rows = [i for i in edit_scores.sharp(pool, 80) if edit_scores.kind(pool.edits[i]) == kind]
    edits, before = [pool.edits[i] for i in rows], from_bytes(torch.from_numpy(pool.before[rows]))
    made = edit_scores.edited(from_pretrained("mini/ip2p"), before, edits, Sampling(text_scale=1.5))
    scores = edit_scores.scores(made, edits, oracle)
    # Of 120 triples it obeys 96 % of styles and 91 % of attributes, and keeps 89 and 93 % of what is not named.
    assert scores["obeyed"] >= obeyed and scores["kept"] >= kept


@pytest.mark.slow
def test_the_judge_recognises_reconstructions_and_samples(world: World, judge: ClipScorer) -> None:
    unet, vae, scheduler = from_pretrained("mini/diffusion")
    scores = score_vae(vae, world, judge, FACES)
    assert scores.reconstructed.caption_to_image >= 0.9 * scores.real.caption_to_image
    encoder = TextEncoder(compact_clip.load(locate("mini/clip-a")), compact_clip.tokenizer())
    sampled = score_samples(
        *(unet, vae, scheduler, lambda prompts: encoder.encode(prompts, shorten=False).words, world, judge),
        guidance_scale=6.0,
    )
    # 0.72 on 200 captions. It was 0.81 before CLIP A changed, to which the UNet was then fitted in 1200 steps only.
    assert sampled.caption_to_image >= 0.65


@pytest.mark.slow
def test_the_generator_is_near_real_pictures_diverse_and_consistent(
    world: World, others: World, judge: ClipScorer
) -> None:
    generator, _ = from_pretrained("mini/eg3d")
    _, vae, _ = from_pretrained("mini/diffusion")
    scores = evaluation.score(generator, lambda images: reconstruct(vae, images), world, others, judge, FACES)
    distance = scores["frechet_distance_mini_clip_b"]
    # With 600 pictures most of both distances is sampling noise. The limit allows the generator as much error again.
    assert distance["generated"] < 2 * distance["other_reconstructed"]
    diversity = scores["diversity"]
    assert diversity["generated"] > 0.8 * diversity["real"]
    assert diversity["truncated_0.5"] < diversity["generated"]
    assert scores["reprojection_error_yaw_0.4"]["color"] < 0.08


def test_tampering_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    from dreamportrait.core.errors import WeightsError
    from dreamportrait.weights.seals import verify

    copy = tmp_path / "oracle"
    shutil.copytree(locate("mini/oracle"), copy)
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(WeightsError, match="model.safetensors"):
        verify(copy)
