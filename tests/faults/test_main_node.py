"""The machine of rank 0 loses power: its agent and its process end at once. The other machine is left alone."""

import time
from pathlib import Path

import pytest
from clusters import FAULTY, TRAINING, assert_same_weights, checkout, fault, final, start_on, two_machines, wait
from toy_run import arguments

pytestmark = pytest.mark.faults


def test_the_main_node_is_killed(sources: Path, undisturbed, record, tmp_path: Path) -> None:
    folder, told = checkout(tmp_path / "checkout", FAULTY), fault("main", tmp_path / "once", rank=0)
    given = arguments(sources, tmp_path / "runs", *TRAINING, "trainer.patience_seconds=10")
    with two_machines() as machines:
        first, second = start_on(machines, given, folder, FAULT=told)
        begun = time.monotonic()
        assert wait(first, begun).code == -9
        died = time.monotonic()
        left = wait(second, begun, limit=120)
        seconds = time.monotonic() - died
        assert left.code not in (0, -9) and "the same command continues" in left.text, left.text
        done = [wait(agent, begun) for agent in start_on(machines, given, folder, FAULT=told)]
        assert [each.code for each in done] == [0, 0], done[0].text + done[1].text
    assert_same_weights(final(tmp_path / "runs"), undisturbed)
    record("machine of rank 0 lost", seconds=seconds, lost_images=4)
