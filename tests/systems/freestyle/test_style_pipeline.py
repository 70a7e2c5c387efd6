"""Tests of StylePipeline with tiny networks: instructions, learning, applying, mixing, exports."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_freestyle import GENERATOR, SIZE, i2t
from tiny_styles import write_model, write_photo

from dreamportrait import StylePipeline
from dreamportrait.core.errors import DataError, WeightsError
from dreamportrait.core.signals import Interrupted, Signals
from dreamportrait.export.provenance import verify
from dreamportrait.systems.freestyle import learning
from dreamportrait.systems.freestyle.adapter import StyleAdapter
from dreamportrait.systems.freestyle.evaluation import Scores
from dreamportrait.systems.freestyle.fewshot import load
from dreamportrait.systems.freestyle.generator import PictureTo3D
from dreamportrait.systems.freestyle.judges import load_judges
from dreamportrait.systems.freestyle.learning import as_in_the_paper, work_folder
from dreamportrait.systems.freestyle.unseen import instant_scores, mixing_scores, unseen_scores
from dreamportrait.viewer.files import make_files

pytestmark = pytest.mark.lengthy


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("freestyle")
    write_model(folder)
    write_photo(folder / "photo.png")
    return folder


@pytest.fixture(scope="module")
def pipe(place) -> StylePipeline:
    return StylePipeline.from_pretrained(place / "model")


@pytest.fixture(scope="module")
def young(pipe, place) -> StyleAdapter:
    """Learn a style and keep its folders."""
    learnt = pipe.learnt(pipe.request("a young woman", seed=3), work_folder(place / "young"), lambda line: None)
    learnt.adapter.save(place / "young", learnt.sheet)
    return learnt.adapter


@pytest.fixture
def photo(place) -> Path:
    return place / "photo.png"


def test_an_instruction_changes_a_photo(pipe, photo):
    head = pipe(photo, "make it old", seed=1, num_views=3)
    assert head.prompt == "make it old" and head.images.shape == (3, SIZE, SIZE, 3)
    other = pipe(photo, "give it a red hat", seed=1)
    assert not torch.equal(head.planes, other.planes)
    assert torch.equal(head.planes, pipe(photo, "make it old", seed=1).planes)
    assert not torch.equal(head.planes, pipe(photo, "make it old", seed=2).planes)
    told = pipe.editing.editor.edit  # the quality words of the model come with every instruction
    seen = []
    pipe.editing.editor.edit = lambda *given: seen.append(given[1]) or told(*given)
    try:
        pipe(photo, "make it old")
    finally:
        del pipe.editing.editor.edit
    assert seen == [("make it old, young", "old")]


def test_instructions_are_carried_out_one_after_another(pipe, photo):
    edits, edit = [], pipe.editing.editor.edit

    def spied(front, told, *rest):
        made = edit(front, told, *rest)
        edits.append((front, told.positive, made.images))
        return made

    pipe.editing.editor.edit = spied
    try:
        head = pipe(photo, "make it old; give it  a beanie", seed=1)
    finally:
        del pipe.editing.editor.edit
    assert [words for _, words, _ in edits] == ["make it old, young", "give it a beanie, young"]
    assert torch.equal(edits[1][0], edits[0][2]) and head.prompt == "make it old; give it  a beanie"
    assert not torch.equal(head.planes, pipe(photo, "give it a beanie; make it old", seed=1).planes)
    for text, said in (("", "the instruction is empty"), ("make it old;", "instruction 2 of 'make it old;' is empty")):
        with pytest.raises(ValueError, match=said):
            pipe(photo, text)


def test_instructions_may_have_a_network_of_their_own(pipe, place, photo):
    apart = StylePipeline.from_pretrained(place / "model")
    apart.instant = PictureTo3D(i2t(seed=1), apart.base.generator)
    assert not torch.equal(apart(photo, "make it old").planes, pipe(photo, "make it old").planes)
    assert "a network of their own" in repr(apart) and "the same network" in repr(pipe)


def test_a_learnt_style_is_saved_and_applied(pipe, young, place, photo):
    again = StyleAdapter.load(place / "young")
    assert again.about == young.about and (place / "young" / "sheet.png").exists()
    about = young.about
    assert about.seeds == ("3", "4") and about.steps == 2 and about.start == 0.9 and about.base == "model"
    assert {score.name for score in about.scores} == {"psnr_of_edited_views", "between_views", "roughness"}
    head = pipe.apply(photo, place / "young")
    assert head.prompt == "a young woman" and head.seed is None
    assert torch.equal(head.planes, pipe.apply(photo, young).planes)
    plain = pipe.base.heads(pipe.front(photo))
    assert torch.equal(pipe.apply(photo, young, strength=0).planes, plain.planes[0])
    assert not torch.equal(head.planes, plain.planes[0])


def test_the_few_shot_set_stays_as_a_data_set(pipe, young, place):
    work = work_folder(place / "young")
    data = load(work / "fewshot", pipe.base.generator)
    assert data.pixels.shape[:2] == (2, 3) and data.styles == ["a young woman"] * 2
    assert (work / "tuning" / "log.csv").exists() and not (work / "tuning" / "state.pt").exists()


def test_a_source_adapter_needs_no_editor(place, young, photo):
    alone = StylePipeline.from_pretrained(place / "model")
    alone.load_editing = None
    assert alone.apply(photo, young).images.shape == (1, SIZE, SIZE, 3)
    with pytest.raises(ValueError, match="no editor of pictures.*--editor"):
        alone(photo, "make it old")


def test_learning_that_was_stopped_continues_to_the_bit(pipe, young, place, monkeypatch):
    """It is stopped once among the edits and once in tuning."""
    work, request = work_folder(place / "stopped"), pipe.request("a young woman", seed=3)
    whole = type(pipe.editing.editor).edit
    calls = []

    def failing(self, *given):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(type(pipe.editing.editor), "edit", failing)
        with pytest.raises(KeyboardInterrupt):
            pipe.learnt(request, work, lambda line: None)
    assert (work / "fewshot.unfinished").exists()
    signals = Signals()
    signals.received = 15  # tuning ends after its first step
    with pytest.raises(Interrupted) as caught:
        pipe.learnt(request, work, lambda line: None, signals)
    assert "stopped after step 1 of 2 of tuning" in caught.value.message
    assert (work / "tuning" / "state.pt").exists()
    again = pipe.learnt(request, work, lambda line: None)
    assert again.adapter.about == young.about
    assert all(torch.equal(x, young.tensors[name]) for name, x in again.adapter.tensors.items())


def test_work_on_another_style_is_refused(pipe, young, place):
    with pytest.raises(DataError, match=r"other settings: styles was .*young woman.*, now it is .*old man"):
        pipe.learnt(pipe.request("an old man", seed=3), work_folder(place / "young"), lambda line: None)


def test_the_papers_way(pipe, photo, caplog):
    request = as_in_the_paper(pipe.request("an old man"))
    assert (request.few_shot.identities, request.few_shot.views) == (1, 100)
    assert (request.tuning.train, request.tuning.input) == ("all", "edited")
    old = pipe.learn(["an old man", "a very old man"], paper=True, few_shot={"views": 2}, tuning={"steps": 1})
    assert old.about.views == 3 and old.about.rank is None and old.about.styles == ("an old man",)
    head = pipe.apply(photo, old)
    assert "was learnt on one face" in caplog.text
    seen = pipe.read_by(old, pipe.front(photo))
    assert not torch.equal(seen, pipe.front(photo))
    assert head.images.shape == (1, SIZE, SIZE, 3)


def test_scores_on_unseen_faces(pipe, young):
    judges = load_judges("none", "mini/clip-b")
    names = {"between_views", "roughness", "clip", "seconds"}
    for found in (unseen_scores(pipe, young, judges, [50, 51]), instant_scores(pipe, "an old man", judges, [50, 51])):
        assert set(found) == names and all(value > 0 for name, value in found.items() if name != "clip")
    with pytest.raises(ValueError, match="was learnt on the face of seed 3"):
        unseen_scores(pipe, young, judges, [2, 3])
    other = replace(young, tensors={name: -x for name, x in young.tensors.items()})
    even = mixing_scores(pipe, young, other, 50, steps=3)
    assert even["ends_are_pure"] == 1 and even["largest_step"] >= 1


def test_mixing(pipe, young, place, photo):
    twice = pipe.mix(photo, {young: 2, str(place / "young"): 0})
    assert torch.equal(twice.planes, pipe.apply(photo, young).planes)
    assert twice.prompt == "1 a young woman + 0 a young woman"
    with pytest.raises(ValueError, match="must not be negative"):
        pipe.mix(photo, {young: -1})
    with pytest.raises(ValueError, match="at least one must be above 0"):
        pipe.mix(photo, {young: 0})


def test_a_styled_head_goes_through_every_exporter(pipe, young, photo, tmp_path):
    head = pipe.apply(photo, young, num_views=2)
    head.save(tmp_path / "head.safetensors")
    again = pipe.load_portrait(tmp_path / "head.safetensors")
    assert torch.equal(again.planes, head.planes) and again.prompt == head.prompt
    torch.testing.assert_close(again.colors, head.colors)
    head.save_sheet(tmp_path / "head.png")
    head.save_page(tmp_path / "head.html", progress=False)
    head.save_video(tmp_path / "head.gif", seconds=0.05, fps=20, progress=False)
    for name in ("head.png", "head.html", "head.gif"):
        claim = verify(tmp_path / name)
        assert claim is not None and claim.model == "model", name
    assert head.view(yaw=20).images.shape == (1, SIZE, SIZE, 3)
    mesh = head.mesh(16, texture=False, progress=False)
    head.save_mesh(tmp_path / "head.glb", 16, texture=False, progress=False)
    assert len(mesh.faces) and (tmp_path / "head.glb").stat().st_size > 1000
    splats = head.save_splats(tmp_path / "head.ply", 1024, corrections=False, progress=False)
    assert len(splats.positions) > 500
    front = head.head.generator.config.around([0.0])
    for end, first in ((".png", b"\x89PNG"), (".safetensors", b"")):  # as the viewer offers them
        ((name, content),) = make_files(head, "head", end, front, True, lambda share: None)
        assert name == f"head{end}" and content.startswith(first) and len(content) > 100


def test_wrong_photos_and_words_are_refused(pipe, photo, young, tmp_path, caplog):
    with pytest.raises(FileNotFoundError, match="is not there"):
        pipe(tmp_path / "none.png", "make it old")
    with pytest.raises(ValueError, match=r"12 x 16 pixels: it must be square .*; --crop \(crop=True\) cuts"):
        pipe(Image.new("RGB", (12, 16)), "make it old")
    assert pipe.front(Image.new("RGB", (12, 16)), crop=True).shape == (1, 3, SIZE, SIZE)
    with pytest.raises(ValueError, match="7 x 7 pixels: at least 8 a side are needed"):
        pipe(Image.new("RGB", (7, 7)), "make it old")
    with pytest.raises(ValueError, match="the instruction is empty"):
        pipe(photo, " ")
    with pytest.raises(ValueError, match=r"knows none of the words 'xyzzy', 'qwrt'; it knows the styles stone statue"):
        pipe(photo, "xyzzy qwrt")
    with pytest.raises(ValueError, match=r"grey levels of more than 8 bits \(I;16\); save it as RGB"):
        pipe(Image.new("I;16", (16, 16)), "make it old")
    pipe(photo, "a xyzzy hat")
    assert "does not know the words 'xyzzy'" in caplog.text
    pipe(photo, "a man " * 40)
    assert "a prompt of 80 tokens is cut to its first 75" in caplog.text
    with pytest.raises(ValueError, match="strength=3: must be within 0 .. 2"):
        pipe.apply(photo, young, strength=3)
    with pytest.raises(WeightsError, match="no style .*nowhere"):
        pipe.apply(photo, "nowhere")
    with pytest.raises(WeightsError, match="neither 'mini' nor a folder"):
        StylePipeline.from_pretrained(tmp_path / "nothing")


def test_a_photo_from_the_side_gives_a_warning(place, photo, caplog):
    pipe = StylePipeline.from_pretrained(place / "model")
    pipe.yaw_of = lambda front: torch.tensor([-10.0])
    pipe.front(photo)
    assert not caplog.text
    with caplog.at_level(logging.WARNING):
        pipe.yaw_of = lambda front: torch.tensor([-31.0])
        pipe.front(photo)
    assert "about 31 degrees to the side" in caplog.text


def test_styles_of_another_network_are_refused(place, young, photo, tmp_path):
    other = StylePipeline.from_pretrained(place / "model")
    other.base.i2t.mean_planes[0, 0, 0, 0] += 1
    with pytest.raises(WeightsError, match="the adapter is of the network model"):
        other.apply(photo, young)


def test_scores_without_judges_are_left_out():
    assert Scores(0.1, 0.2).as_dict() == {"between_views": 0.1, "roughness": 0.2}
    assert learning.SHOWN >= 1 and GENERATOR.image_resolution == SIZE
