"""Tests of the viewer's server with users that speak its protocol in the place of a browser, on `mini`."""

import io
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("viser")

from viewer_users import after, differ, read, says, wait

from benchmarks.viewer import User
from dreamportrait.export.provenance import inspect
from dreamportrait.export.splats import Splats
from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline
from dreamportrait.viewer import session
from dreamportrait.viewer.picture import BACKGROUND
from dreamportrait.viewer.request import Maker, Request
from dreamportrait.viewer.server import Viewer

pytestmark = pytest.mark.lengthy

TITLE = "a woman with red hair"


def test_pictures_are_letterboxed_drafts_and_then_full(join: Callable[[], User]) -> None:
    user = join()
    full = after(user, lambda: user.look(5.0, width=1200, height=600))
    assert full.shape == (512, 1024, 3)
    assert np.abs(full[:, 100] - BACKGROUND).max() < 10  # JPEG
    draft = read(user.pictures[-2][1])
    assert draft.shape == (64, 128, 3)
    high = after(user, lambda: user.look(5.0, width=600, height=1200))
    assert high.shape == (1024, 512, 3)


def test_the_picture_is_the_portrait_from_the_browsers_camera(
    join: Callable[[], User], pipe: DreamPortraitPipeline
) -> None:
    user = join()
    user.set("Beyond training", True)
    seen = after(user, lambda: user.look(40.0, 10.0, width=512, height=512))
    views = {yaw: pipe(TITLE, 0).view(yaw, 10.0).pictures[0] for yaw in (-40.0, 0.0, 40.0)}
    errors = {
        yaw: np.abs(np.asarray(view.resize((512, 512), Image.Resampling.BICUBIC)).astype(int) - seen).mean()
        for yaw, view in views.items()
    }
    assert min(errors, key=errors.__getitem__) == 40.0
    assert errors[40.0] < 3  # levels; what JPEG of quality 90 changes


def test_cameras_stop_at_the_trained_range(join: Callable[[], User]) -> None:
    user = join()
    edge = after(user, lambda: user.look(29.07))  # what the model's training cameras reached
    beyond = after(user, lambda: user.look(80.0))
    assert not differ(edge, beyond)
    user.wait(says("the camera is at yaw 80, pitch 0 degrees; pictures stop at 29 and 7"))
    assert differ(beyond, after(user, lambda: user.set("Beyond training", True)))
    user.wait(says("yaw=80, a view from 80 degrees right: this model was trained on"))


def test_prompts_seeds_and_sliders_change_the_portrait(join: Callable[[], User]) -> None:
    user = join()
    first = after(user, lambda: user.look(0.0))
    man = after(user, lambda: user.generate("a bald man"))
    assert differ(first, man)
    for label, value in {"Seed": 5, "Truncation": 0.2, "Strength": 0.3}.items():
        before, man = man, after(user, lambda label=label, value=value: user.set(label, value))
        assert differ(before, man), label
    back = after(user, lambda: (user.set("Seed", 0), user.set("Truncation", 1.0), user.set("Strength", 1.0)))
    user.wait(lambda u: u.contents[u.controls["Prompt"]] is not None)
    again = after(user, lambda: user.generate(TITLE))
    assert not differ(first, again) and differ(first, back)


def test_mixing(join: Callable[[], User], pipe: DreamPortraitPipeline) -> None:
    user = join()
    user.set("Mix with", "an old man")
    half = after(user, lambda: user.set("Generate", True))
    quarter = after(user, lambda: user.set("Mix", 0.25))
    assert differ(half, quarter)
    user.look(0.0, width=512, height=512)
    seen = after(user, lambda: user.set("Mix", 1.0))
    expected = pipe("an old man", 0).pictures[0].resize((512, 512), Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(expected).astype(int) - seen).mean() < 3  # levels, for JPEG


def test_an_instruction_restyles_the_portrait(join: Callable[[], User]) -> None:
    user = join()
    first = after(user, lambda: user.look(0.0, width=512, height=512))
    user.set("Restyle", "turn the head into a gold statue")
    gold = after(user, lambda: user.set("Generate", True))
    assert differ(first, gold)
    red, blue = (gold[160:350, 160:350, i].mean() for i in (0, 2))  # the middle of the face
    assert red > blue + 40
    user.set("Restyle", "glub glub")
    user.set("Generate", True)
    user.wait(says("the editor knows none of the words"))
    user.set("Restyle", "")
    assert not differ(first, after(user, lambda: user.set("Generate", True)))


def test_what_restyling_needs(pipe: DreamPortraitPipeline) -> None:
    asked = Request(TITLE, instruction="turn the head into an elf")
    assert asked.title == f"{TITLE}, seed 0, turn the head into an elf"
    with pytest.raises(ValueError, match="restyles nothing: no free-style model was given with --styles"):
        Maker(pipe)(asked)


def test_the_history_leads_back(join: Callable[[], User]) -> None:
    user = join()
    first = after(user, lambda: user.look(0.0))
    after(user, lambda: user.generate("a bald man"))
    after(user, lambda: user.set("Strength", 0.5))  # the same entry
    back = after(user, lambda: user.set("Back to", "2"))
    assert not differ(first, back)
    user.wait(lambda u: u.contents[u.controls["Prompt"]].get("value") == TITLE)
    before = len(user.pictures)
    user.set("Back to", "6")  # there are two
    assert differ(back, after(user, lambda: user.set("Back to", "2"))) and len(user.pictures) > before


def test_depth_normals_and_splats(join: Callable[[], User]) -> None:
    user = join()
    color = after(user, lambda: user.look(0.0))
    depth = after(user, lambda: user.set("Show", "Depth"))
    assert differ(color, depth) and np.abs(depth - depth.mean(-1, keepdims=True)).max() < 12  # grey, but for JPEG
    assert differ(depth, after(user, lambda: user.set("Show", "Normals")))
    before = len(user.pictures)
    user.set("Show", "Splats")
    user.wait(lambda u: "GaussianSplatsMessage" in u.scene and len(u.pictures) > before)
    assert read(user.pictures[-1][1]).tolist() == [[[*BACKGROUND]]]
    count = len(user.pictures)
    user.look(20.0)  # turns in the browser
    threading.Event().wait(3 * session.REST)
    assert len(user.pictures) == count
    assert not differ(color, after(user, lambda: (user.look(0.0), user.set("Show", "Picture"))))
    assert user.scene[-1] == "RemoveSceneNodeMessage"


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "an empty prompt asks for nothing"),
        ("x" * 10_000, "a prompt of 10000 characters"),
        ("<img src=x onerror=alert(1)>" * 100, "&#x27;&lt;img src=x onerror"),
    ],
)
def test_what_prompts_get_said(join: Callable[[], User], prompt: str, message: str) -> None:
    user = join()
    user.generate(prompt)
    user.wait(lambda u: message in str(u.contents) or message in u.text())
    user.generate("a bald man")
    user.wait(lambda u: message not in u.text())


def test_wrong_numbers_are_refused(join: Callable[[], User]) -> None:
    user = join()
    user.set("Strength", 99.0)
    user.wait(says("strength=99.0: must be within 0 .. 1.5"))
    user.set("Strength", 1.0)
    user.set("Seed", -1)
    user.wait(says("seed must be at least 0, got -1"))


def test_users_do_not_see_each_other(join: Callable[[], User]) -> None:
    one, other = join(), join()
    threading.Event().wait(3 * session.REST)  # all drawings of the start are done
    count = len(other.pictures)
    changed = after(one, lambda: one.generate("a bald man"))
    assert len(other.pictures) == count and "a bald man" not in str(other.contents)
    assert differ(changed, after(other, lambda: other.look(0.0)))


def test_downloads(join: Callable[[], User], tmp_path: Path, pipe: DreamPortraitPipeline) -> None:
    user = join()
    wanted = {
        "PNG: this view": "portrait-0.png",
        "PLY: mesh": "portrait-0-mesh.ply",
        "PLY: splats": "portrait-0-splats.ply",
        "SPZ: splats": "portrait-0.spz",
        "GLB: textured mesh": "portrait-0.glb",
        "HTML: page that turns the head": "portrait-0.html",
        "Portrait for dreamportrait": "portrait-0.safetensors",
    }
    for label, name in wanted.items():
        user.set("File", label)
        user.set("Download", True)
        user.wait(lambda u, name=name: name in u.files)  # type: ignore[misc]
        (tmp_path / name).write_bytes(user.files[name])
    beside = [f"{name}.provenance.json" for name in wanted.values() if name.endswith((".ply", ".spz"))]
    user.wait(lambda u: set(beside) <= set(u.files))
    for name in beside:
        (tmp_path / name).write_bytes(user.files[name])
    with Image.open(tmp_path / "portrait-0.png") as picture:
        assert picture.size == (256, 256)  # `mini` draws 64 x 64
    for name in set(wanted.values()) - {"portrait-0.html", "portrait-0.safetensors"}:
        found = inspect(tmp_path / name)
        assert found is not None and found.claim == pipe.claim, name
    assert (
        len(Splats.load(tmp_path / "portrait-0.spz")) == len(Splats.load(tmp_path / "portrait-0-splats.ply")) > 50_000
    )
    assert torch.equal(pipe.load_portrait(tmp_path / "portrait-0.safetensors").planes, pipe(TITLE, 0).planes)


def test_a_video(join: Callable[[], User], tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    user = join()
    user.set("File", "MP4: turning head")
    user.set("Download", True)
    user.wait(lambda u: "portrait-0.mp4" in u.files)
    with av.open(io.BytesIO(user.files["portrait-0.mp4"])) as film:
        assert film.streams.video[0].frames == 90


def test_a_lost_connection_frees_the_queue(
    viewer: Viewer, join: Callable[[], User], monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving, staying = join(), join()
    started, ended = threading.Event(), threading.Event()

    def endless(portrait: object, name: str, end: str, label: object, provenance: bool, report: Callable) -> None:
        started.set()
        try:
            while True:
                report(0.5)
        finally:
            ended.set()

    monkeypatch.setattr(session, "make_files", endless)
    leaving.set("Download", True)
    assert started.wait(30)
    before = len(staying.pictures)
    staying.generate("a bald man")
    staying.wait(says("waiting for 1 other"))
    assert len(staying.pictures) == before and not ended.is_set()
    leaving.close()
    staying.wait(lambda u: len(u.pictures) > before)
    assert ended.is_set() and viewer.users == 1


def test_too_many_users_and_too_much_work(pipe: DreamPortraitPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, started = threading.Event(), threading.Event()

    def slow(*arguments: object) -> list:
        started.set()
        assert gate.wait(30)
        return []

    monkeypatch.setattr(session, "make_files", slow)
    with Viewer(pipe, port=0, users=3, waiting=1) as viewer:
        users = [User(viewer.address) for _ in range(3)]
        for user in users:
            user.wait(lambda u: "Download" in u.controls)
        fourth = User(viewer.address)
        fourth.wait(lambda u: "The viewer is full:** 3 people use it" in str(u.contents))
        users[0].set("Download", True)
        assert started.wait(30)
        users[1].generate("a bald man")
        users[1].wait(says("waiting for 1 other"))
        users[2].generate("a bald man")
        users[2].wait(says("1 jobs are waiting already"))
        gate.set()
        for user in (*users, fourth):
            user.close()
        wait(lambda: viewer.users == 0)


def test_a_failure_is_said_and_logged(
    join: Callable[[], User], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    user = join()
    monkeypatch.setattr(session, "make_files", lambda *arguments: [][0])
    user.set("Download", True)
    user.wait(says("this failed; the viewer"))
    assert "IndexError" in caplog.text
    monkeypatch.undo()
    user.set("Download", True)
    user.wait(lambda u: "portrait-0.png" in u.files)
