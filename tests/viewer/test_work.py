"""Tests of the viewer's queue. Jobs wait for events, so that no test depends on the clock."""

import threading
from collections.abc import Iterator

import pytest

from dreamportrait.viewer.work import Busy, Check, WorkQueue


@pytest.fixture
def queue() -> Iterator[WorkQueue]:
    made = WorkQueue(limit=4)
    yield made
    made.stop()


class Gate:
    """A job that says when it has started, and runs until it is opened."""

    def __init__(self) -> None:
        self.started, self.opened = threading.Event(), threading.Event()

    def __call__(self, check: Check) -> None:
        self.started.set()
        assert self.opened.wait(30)


def finish(queue: WorkQueue, gate: Gate) -> None:
    """Open the gate, and wait until a last job of another owner has run."""
    done = threading.Event()
    queue.limit += 1
    queue.submit("last", "last", lambda check: done.set())
    gate.opened.set()
    assert done.wait(30)


def test_owners_take_turns_and_newer_jobs_replace_older_ones(queue: WorkQueue) -> None:
    gate, ran = Gate(), []
    assert queue.submit("first", "job", gate) == 0
    assert gate.started.wait(30)
    assert queue.submit("a", "portrait", lambda check: ran.append("a portrait 1")) == 1
    assert queue.submit("a", "file", lambda check: ran.append("a file")) == 2
    assert queue.submit("b", "portrait", lambda check: ran.append("b portrait")) == 3
    assert queue.submit("a", "portrait", lambda check: ran.append("a portrait 2")) == 3
    finish(queue, gate)
    assert ran == ["a file", "b portrait", "a portrait 2"]


def test_what_waits_is_limited(queue: WorkQueue) -> None:
    gate, ran = Gate(), []
    queue.submit("first", "job", gate)
    assert gate.started.wait(30)
    for owner in range(4):
        queue.submit(owner, "job", lambda check, owner=owner: ran.append(owner))
    with pytest.raises(Busy, match="4 jobs are waiting already; try again"):
        queue.submit(4, "job", lambda check: ran.append(4))
    queue.submit(3, "job", lambda check: ran.append("newer"))  # replacing is always allowed
    queue.forget(0)
    queue.submit(4, "job", lambda check: ran.append(4))
    finish(queue, gate)
    assert ran == [1, 2, "newer", 4]


def test_a_lost_owner_frees_the_queue(queue: WorkQueue) -> None:
    started, ran = threading.Event(), []

    def endless(check: Check) -> None:
        started.set()
        while True:
            check()

    queue.submit("lost", "film", endless)
    queue.submit("lost", "portrait", lambda check: ran.append("lost"))
    assert started.wait(30)
    queue.forget("lost")
    done = threading.Event()
    queue.submit("other", "portrait", lambda check: done.set())
    assert done.wait(30) and ran == []


def test_delayed_jobs_let_others_pass(queue: WorkQueue) -> None:
    gate, ran, last = Gate(), [], threading.Event()
    queue.submit("first", "job", gate)
    assert gate.started.wait(30)
    queue.submit("a", "full", lambda check: (ran.append("full"), last.set()), delay=0.5)
    queue.submit("a", "draft", lambda check: ran.append("draft"))
    gate.opened.set()
    assert last.wait(30) and ran == ["draft", "full"]


def test_jobs_of_an_owner_run_in_the_order_of_their_last_request(queue: WorkQueue) -> None:
    gate, ran, last = Gate(), [], threading.Event()
    queue.submit("first", "job", gate)
    assert gate.started.wait(30)
    queue.submit("a", "full", lambda check: ran.append("old"))
    queue.submit("a", "draft", lambda check: ran.append("draft"))
    queue.submit("a", "full", lambda check: (ran.append("full"), last.set()))
    gate.opened.set()
    assert last.wait(30) and ran == ["draft", "full"]


def test_a_failed_job_does_not_end_the_thread(queue: WorkQueue, caplog: pytest.LogCaptureFixture) -> None:
    done = threading.Event()
    queue.submit("a", "job", lambda check: [][0])
    queue.submit("b", "job", lambda check: done.set())
    assert done.wait(30)
    assert "a job of the viewer failed" in caplog.text and "IndexError" in caplog.text


def test_stopping_drops_what_waits() -> None:
    queue, started, ran = WorkQueue(limit=4), threading.Event(), []

    def endless(check: Check) -> None:
        started.set()
        while True:
            check()

    queue.submit("a", "film", endless)
    queue.submit("b", "job", lambda check: ran.append("b"))
    assert started.wait(30)
    queue.stop()
    assert ran == [] and not queue._thread.is_alive()
