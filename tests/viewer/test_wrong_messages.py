"""Tests of what the viewer does with messages and requests that no page sends, and with a thousand at once."""

import json
import math
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest

pytest.importorskip("viser")

from viewer_users import after, differ, read, says, wait

from benchmarks.viewer import User
from dreamportrait.viewer.server import Viewer

pytestmark = pytest.mark.lengthy


@pytest.mark.parametrize(("label", "value"), [("Truncation", math.nan), ("Strength", -math.inf)])
def test_numbers_that_no_page_sends_are_refused(join: Callable[[], User], label: str, value: float) -> None:
    user = join()
    user.set(label, value)
    user.wait(says(f"{label.lower()} must be finite"))
    user.set(label, 1.0)
    assert after(user, lambda: user.look(5.0)).size  # the user goes on


@pytest.mark.parametrize(("label", "value"), [("Seed", "seven"), ("Seed", math.inf), ("Truncation", [1.0])])
def test_values_of_another_kind_are_ignored(join: Callable[[], User], label: str, value: object) -> None:
    user = join()
    first = after(user, lambda: user.look(5.0))
    user.set(label, value)  # viser logs that it cannot be converted
    man = after(user, lambda: user.generate("a bald man"))
    assert differ(first, man)


def test_messages_that_no_page_sends_are_ignored(join: Callable[[], User]) -> None:
    user = join()
    user.send("GuiUpdateMessage", uuid="nothing", updates={"value": 1})
    user.set("File", "../../etc/passwd")
    user.set("Download", True)
    user.set("Back to", "99")
    user.look(math.nan)
    user.look(5.0, distance=math.inf)
    user.look(5.0, width=0, height=0)
    user.look(5.0, width=10**9, height=1)
    user.set("Show", "Everything")
    seen = after(user, lambda: (user.set("Show", "Picture"), user.look(0.0, width=512, height=512)))
    assert seen.shape == (512, 512, 3) and user.files == {}


def test_a_thousand_quick_requests(viewer: Viewer, join: Callable[[], User]) -> None:
    user, other = join(), join()
    for number in range(1000):
        user.set("Seed", number)
        user.look(number % 60 - 30.0)
    for _ in range(200):
        with urllib.request.urlopen(viewer.address) as page:
            assert page.status == 200
    last = after(other, lambda: other.generate("a bald man"))
    user.set("Prompt", "a bald man")
    user.set("Seed", 0)
    user.look(0.0)
    user.wait(lambda u: not differ(last, read(u.pictures[-1][1])))


@pytest.mark.parametrize("data", [b"", b"\xc1 no msgpack", b"\x81\xa4type\xa7Nothing", "text"])
def test_malformed_messages_end_only_their_connection(
    viewer: Viewer, join: Callable[[], User], data: bytes | str, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = join(), join()
    bad.socket.send(data)
    wait(lambda: viewer.users == 1)
    assert after(good, lambda: good.generate("a bald man")).size


def test_wrong_requests_for_pages(viewer: Viewer) -> None:
    for path in ("nothing", "../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{viewer.address}/{path}")


def test_no_message_opens_a_tunnel(viewer: Viewer, join: Callable[[], User], monkeypatch: pytest.MonkeyPatch) -> None:
    import viser._viser

    asked = []
    monkeypatch.setattr(viser._viser, "ViserTunnel", lambda *arguments: asked.append(arguments))
    user = join()
    user.send("ShareUrlRequest")
    after(user, lambda: user.generate("a bald man"))  # messages are handled in order
    assert asked == []
    theme = [json.dumps(content) for content in user.contents.values() if "show_share_button" in content]
    assert all('"show_share_button": false' in each for each in theme)


def test_other_hosts_are_refused_before_anything_is_made() -> None:
    with pytest.raises(ValueError, match="the viewer has no password"):
        Viewer(None, host="0.0.0.0")  # type: ignore[arg-type]
