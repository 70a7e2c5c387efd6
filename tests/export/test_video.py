"""Tests of videos: files are read back frame by frame, and what happens to files when something goes wrong."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image, ImageSequence
from tiny_pipeline import write_portrait

from dreamportrait.cli.video import video
from dreamportrait.eg3d.planes import Planes
from dreamportrait.export import encoding
from dreamportrait.export import video as filming
from dreamportrait.export.encoding import VIDEO_SUFFIXES, check_video_target, encode
from dreamportrait.export.provenance import Claim, verify
from dreamportrait.export.sheets import enlarged
from dreamportrait.export.video import save_video
from dreamportrait.geometry import paths
from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline

COLOURS = [(200, 30, 40), (30, 180, 60), (40, 60, 210), (128, 128, 128), (250, 240, 20)]
CLAIM = Claim(model="tiny", model_sha256="ab" * 32)
# Coarser steps than 8 bits in limited range, and lossy compression of a single colour: measured at most 3.
TOLERANCE = 4


def plain(height: int = 64, width: int = 96) -> Iterator[np.ndarray]:
    """Yield frames of one colour each."""
    for colour in COLOURS:
        yield np.full((height, width, 3), colour, np.uint8)


def read(path: Path) -> list[np.ndarray]:
    """Return all frames [H, W, 3]."""
    if path.suffix == ".gif":
        with Image.open(path) as picture:
            return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)]
    av = pytest.importorskip("av")
    with av.open(str(path)) as film:
        return [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]


@pytest.fixture
def suffix(request: pytest.FixtureRequest) -> str:
    if request.param != ".gif":
        pytest.importorskip("av")
    return request.param


every_suffix = pytest.mark.parametrize("suffix", VIDEO_SUFFIXES, indirect=True)


@every_suffix
def test_frames_come_back_in_their_colours(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"film{suffix}"
    encode(plain(), path, 10, None)
    frames = read(path)
    assert len(frames) == len(COLOURS)
    for frame, colour in zip(frames, COLOURS, strict=True):
        assert frame.shape == (64, 96, 3)
        assert np.abs(frame.astype(int) - colour).max() <= TOLERANCE
    assert list(path.parent.iterdir()) == [path]


@every_suffix
def test_left_stays_left_and_up_stays_up(tmp_path: Path, suffix: str) -> None:
    frame = np.zeros((64, 96, 3), np.uint8)
    frame[:32, :48] = 255
    encode([frame] * 3, tmp_path / f"film{suffix}", 10, None)
    found = read(tmp_path / f"film{suffix}")[-1].mean(2)
    assert found[:28, :44].min() > 240 and found[36:].max() < 15 and found[:, 52:].max() < 15


@pytest.mark.parametrize("suffix", [".mp4", ".webm"], indirect=True)
def test_odd_sizes(tmp_path: Path, suffix: str) -> None:
    encode(plain(33, 65), tmp_path / f"film{suffix}", 10, None)
    frames = read(tmp_path / f"film{suffix}")
    assert {frame.shape for frame in frames} == {(34, 66, 3)}
    assert np.abs(frames[0].astype(int) - COLOURS[0]).max() <= TOLERANCE  # no dark line at the edge


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "h264"), (".webm", "vp9")], indirect=["suffix"])
def test_what_browsers_need(tmp_path: Path, suffix: str, codec: str) -> None:
    path = tmp_path / f"film{suffix}"
    encode(plain(), path, 25, None)
    with pytest.importorskip("av").open(str(path)) as film:
        stream = film.streams.video[0]
        assert stream.codec_context.name == codec or stream.codec_context.codec.canonical_name == codec
        assert stream.pix_fmt == "yuv420p" and stream.average_rate == 25
        assert film.duration == pytest.approx(1e6 * len(COLOURS) / 25, abs=2e3)  # WEBM counts milliseconds
    if suffix == ".mp4":
        data = path.read_bytes()
        assert data.index(b"moov") < data.index(b"mdat")  # plays while it loads


@pytest.mark.parametrize(("fps", "times"), [(10, [100] * 5), (30, [30, 40, 30, 30, 40])])
def test_gifs_repeat_and_keep_their_length(tmp_path: Path, fps: int, times: list[int]) -> None:
    encode(plain(), tmp_path / "film.gif", fps, None)
    with Image.open(tmp_path / "film.gif") as picture:
        assert picture.info["loop"] == 0  # for ever
        assert [frame.info["duration"] for frame in ImageSequence.Iterator(picture)] == times


def test_gradients_in_a_gif(tmp_path: Path) -> None:
    """256 colours for all frames are enough for smooth shades of several hues."""
    ramp = np.linspace(0, 1, 64)
    shades = [np.outer(ramp, [*colour]).reshape(1, 64, 3).repeat(64, 0).astype(np.uint8) for colour in COLOURS]
    encode(shades, tmp_path / "film.gif", 10, None)
    errors = [np.abs(a.astype(int) - b).mean() for a, b in zip(read(tmp_path / "film.gif"), shades, strict=True)]
    assert max(errors) < 3  # measured 1.4; the 216 colours of the web give 12


# Files.


@every_suffix
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_leaves_what_was_there(tmp_path: Path, suffix: str, error: type[BaseException]) -> None:
    def stopped() -> Iterator[np.ndarray]:
        yield from plain()
        raise error

    path = tmp_path / f"film{suffix}"
    with pytest.raises(error):
        encode(stopped(), path, 10, CLAIM)
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"mine")
    with pytest.raises(error):
        encode(stopped(), path, 10, CLAIM)
    assert path.read_bytes() == b"mine" and list(tmp_path.iterdir()) == [path]


@every_suffix
def test_frames_are_the_same_with_a_claim(tmp_path: Path, suffix: str) -> None:
    plainly, marked = tmp_path / f"plain{suffix}", tmp_path / f"marked{suffix}"
    encode(plain(), plainly, 10, None)
    encode(plain(), marked, 10, CLAIM)
    assert all(np.array_equal(a, b) for a, b in zip(read(plainly), read(marked), strict=True))
    assert verify(plainly) is None and verify(marked) == CLAIM


def test_players_show_the_comment(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    for suffix, key in ((".mp4", "comment"), (".webm", "COMMENT")):
        encode(plain(), tmp_path / f"film{suffix}", 10, CLAIM)
        with av.open(str(tmp_path / f"film{suffix}")) as film:
            assert film.metadata[key].startswith("Made by AI: DreamPortrait")


@pytest.mark.parametrize(
    ("name", "fps", "error", "message"),
    [
        ("film.avi", 30, ValueError, "must end in one of .mp4, .webm, .gif"),
        ("film.mp4", 0, ValueError, "fps=0: must be within 1 .. 120"),
        ("film.gif", 60, ValueError, "fps=60: must be within 1 .. 50 for .gif"),
        ("folder.gif", 30, IsADirectoryError, "is a folder"),
        ("mine.gif", 30, FileExistsError, "mine.gif exists; name another file, or allow overwriting"),
        ("mine.gif/film.gif", 30, NotADirectoryError, "mine.gif is no folder"),
    ],
)
def test_wrong_targets(tmp_path: Path, name: str, fps: int, error: type[OSError], message: str) -> None:
    (tmp_path / "folder.gif").mkdir()
    (tmp_path / "mine.gif").write_bytes(b"mine")
    with pytest.raises(error, match=message):
        check_video_target(tmp_path / name, fps)
    check_video_target(tmp_path / "mine.gif", 30, overwrite=True)


def test_a_folder_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as a user who may write everywhere
    with pytest.raises(PermissionError, match="nothing may be written"):
        check_video_target(tmp_path / "film.gif", 30)


def test_a_missing_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"\.mp4 needs PyAV.*pip install 'dreamportrait\[video\]', or use \.gif"):
        check_video_target(tmp_path / "film.mp4", 30)
    assert check_video_target(tmp_path / "film.gif", 30) == tmp_path / "film.gif"


# Heads.


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_portrait(tmp_path_factory.mktemp("models") / "portrait")


@pytest.fixture(scope="module")
def head(model: Path) -> Planes:
    return DreamPortraitPipeline.from_pretrained(model)("a man").head


def test_frames_are_the_views_of_the_cameras(head: Planes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[np.ndarray] = []
    monkeypatch.setattr(filming, "encode", lambda frames, *_: taken.extend(frames))
    cameras = head.generator.config.around([-60, -30, -15, 0, 20, 50])  # more than one batch, and a rest
    made = save_video(head, tmp_path / "film.gif", cameras=cameras, claim=None, fps=10)
    assert made == (6, 10, 256, 256 // head.generator.config.image_resolution)
    (views,) = head.views(cameras)
    expected = [np.asarray(enlarged(picture, 256)).astype(int) for picture in views.pictures]
    for i, frame in enumerate(taken):
        errors = [np.abs(frame - picture).max() for picture in expected]
        assert errors[i] <= 1 and sorted(errors)[1] > 4  # batches change the order of sums, so a value may round anew
    assert len(taken) == 6


@pytest.mark.lengthy
def test_a_progress_bar(head: Planes, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for progress, shown in ((True, True), (False, False)):
        cameras = paths.orbit(head.generator.config, 2)
        save_video(head, tmp_path / "film.gif", cameras=cameras, claim=None, progress=progress, overwrite=True)
        assert ("/2 [" in capsys.readouterr().err) == shown
    save_video(head, tmp_path / "film.gif", cameras=cameras, claim=None, overwrite=True)
    assert capsys.readouterr().err == ""  # by default, terminals only


def test_one_head_only(head: Planes, tmp_path: Path) -> None:
    two = Planes(head.generator, head.planes.expand(2, -1, -1, -1, -1), head.ws.expand(2, -1, -1))
    with pytest.raises(ValueError, match=r"2 heads: a video shows one; choose it with heads\[i\]"):
        save_video(two, tmp_path / "film.gif", cameras=paths.orbit(head.generator.config, 2), claim=None)


def test_wrong_arguments_come_before_the_work(head: Planes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Planes, "view", lambda *_: pytest.fail("a frame was rendered"))
    cameras = paths.orbit(head.generator.config, 2)
    for settings, message in (({"fps": 500}, "fps=500"), ({"resolution": 0}, "resolution"), ({}, "must end in")):
        path = tmp_path / ("film.gif" if settings else "film.doc")
        with pytest.raises(ValueError, match=message):
            save_video(head, path, cameras=cameras, claim=None, **settings)
    with pytest.raises(ValueError, match="camera 1 of 2"):
        save_video(head, tmp_path / "film.gif", cameras=cameras * torch.tensor([[1], [2]]), claim=None)
    assert list(tmp_path.iterdir()) == []


# The command.


def run(*words: object) -> Result:
    return CliRunner().invoke(video, [*map(str, words)])


@pytest.mark.lengthy
def test_the_command(model: Path, tmp_path: Path) -> None:
    out, keys = tmp_path / "film.gif", tmp_path / "keys.csv"
    keys.write_text("yaw,pitch\n-10,0\n10,0\n")
    common = ("--model", model, "--out", out, "--seconds", 0.3, "--fps", 10, "--device", "cpu")
    done = run("a man", *common)
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"wrote {out}: 3 frames of 256 x 256, 10 a second, seed 0\n")
    assert "times as large as rendered" in done.output
    assert verify(out).model == "portrait"
    first = read(out)
    done = run("a man", *common, "--path", keys, "--seed", 1, "--overwrite", "--no-provenance", "--json")
    facts = json.loads(done.output)
    assert facts["frames"] == 3 and facts["out"] == str(out) and facts["seed"] == 1 and facts["provenance"] is None
    assert verify(out) is None and not np.array_equal(read(out)[1], first[1])
    done = run("a man", *common, "--path", "ellipse", "--overwrite", "--json")
    assert json.loads(done.output)["provenance"]["generator"] == "DreamPortrait"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "Missing argument 'PROMPT'"),
        (("a", "man", "--out", "OUT/a.gif"), 2, 'got 2 texts: put the prompt in quotes, "a man"'),
        (("a man", "--out", "OUT/a.avi"), 1, "must end in one of"),
        (("a man", "--out", "OUT/a.gif", "--fps", 60), 1, "fps=60"),
        (("a man", "--out", "OUT/a.gif", "--seconds", 0), 2, "'--seconds': 0"),
        (("a man", "--out", "OUT/a.gif", "--path", "spiral"), 1, "--path spiral: must be orbit, ellipse or a file"),
        (("a man", "--out", "OUT/a.gif", "--model", "maxi"), 1, "no text-to-3D model 'maxi'"),
    ],
)
def test_wrong_commands(tmp_path: Path, words: tuple, code: int, message: str) -> None:
    done = run(*(str(word).replace("OUT", str(tmp_path)) for word in words))
    assert done.exit_code == code and message in done.output and "Traceback" not in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_file_of_keys_comes_before_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DreamPortraitPipeline, "from_pretrained", lambda *_: pytest.fail("the model was loaded"))
    (tmp_path / "keys.csv").write_text("yaw\n0\n")
    done = run("a man", "--out", tmp_path / "film.gif", "--path", tmp_path / "keys.csv")
    assert done.exit_code == 1 and "needs yaw and pitch" in done.output
