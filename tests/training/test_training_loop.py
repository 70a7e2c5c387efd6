"""Tests of the loop around a training step: continued runs, non-finite losses, damaged files."""

import csv
import math
import os
import random
import subprocess
import sys

import pytest
import torch
from same_states import assert_same
from torch import nn

from dreamportrait.core.errors import NonFiniteLoss
from dreamportrait.training.loop import cosine, fit, set_lr
from dreamportrait.training.schedule import Ema, half_life
from dreamportrait.training.states import load_state, save_state


class Run:
    """A network that learns to copy noise, with all that a run saves. Dropout also draws from the step's seed."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 4))
        self.optimizer = torch.optim.Adam(self.net.parameters(), 0.01, betas=(0.5, 0.9))
        self.average = Ema(self.net)
        self.seen: list[float] = []
        self.poison: dict[int, float] = {}  # index of a step -> factor of its loss

    @property
    def state(self):
        return {"net": self.net, "average": self.average, "optimizer": self.optimizer}

    def step(self, index: int):
        x = torch.randn(16, 4)
        copy = (self.net(x) - x).square().mean() * self.poison.get(index, 1.0)
        weight = self.net[0].weight.square().mean()
        set_lr(self.optimizer, cosine(index, 40, 0.01, warmup=5))
        self.optimizer.zero_grad()
        (copy + 0.1 * weight).backward()
        self.optimizer.step()
        self.average.update(self.net, half_life(16, 100))
        self.seen.append(copy.item())
        return {"copy": copy, "weight": weight}

    def fit(self, folder, steps: int, **settings) -> "Run":
        fit(self.step, self.state, steps, folder, **{"seed": 3, "save_every": 10, "log_every": 4, **settings})
        return self


def parts(run: Run):
    return {name: part.state_dict() for name, part in run.state.items()}


def rows(folder):
    with open(folder / "log.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.lengthy
def test_stopped_and_continued_is_the_same_as_one_run(tmp_path):
    once = Run().fit(tmp_path / "once", 24)
    first = Run().fit(tmp_path / "twice", 12)
    torch.manual_seed(99)  # as if other random numbers were drawn in between
    second = Run().fit(tmp_path / "twice", 24)
    assert first.seen + second.seen == once.seen and len(second.seen) == 12
    assert_same(parts(second), parts(once))
    assert rows(tmp_path / "twice") == rows(tmp_path / "once")
    assert_same(load_state(tmp_path / "twice" / "state.pt"), load_state(tmp_path / "once" / "state.pt"))
    assert Run().fit(tmp_path / "once", 24).seen == []


def test_seeds(tmp_path):
    seen = {seed: Run().fit(tmp_path / str(seed), 6, seed=seed).seen for seed in (3, 4)}
    assert seen[3] != seen[4] and len(set(seen[3])) == 6
    assert Run().fit(tmp_path / "again", 6).seen == seen[3]


def test_interrupted_between_saves(tmp_path):
    """Steps after the last save are repeated, and their lines are not in the log twice."""

    def interrupted(done):
        if done == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Run().fit(tmp_path / "cut", 24, every={1: interrupted})
    assert [int(row["step"]) for row in rows(tmp_path / "cut")] == [4, 8, 12, 16]
    with open(tmp_path / "cut" / "log.csv", "a") as file:
        file.write("1")  # an incomplete line
    continued = Run().fit(tmp_path / "cut", 24)
    assert len(continued.seen) == 14
    once = Run().fit(tmp_path / "once", 24)
    assert rows(tmp_path / "cut") == rows(tmp_path / "once")
    assert_same(parts(continued), parts(once))


def test_slow_steps_are_saved_when_time_has_passed(tmp_path):
    """With no time between saves, only the step that was interrupted is repeated."""

    def interrupted(done):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Run().fit(tmp_path / "cut", 12, save_every=100, save_seconds=0, every={1: interrupted})
    continued = Run().fit(tmp_path / "cut", 12, save_every=100)
    assert len(continued.seen) == 6
    once = Run().fit(tmp_path / "once", 12, save_every=100)
    assert rows(tmp_path / "cut") == rows(tmp_path / "once")
    assert_same(parts(continued), parts(once))


def test_rare_losses_have_their_column(tmp_path):
    """A regulariser that runs every third step and a loss that starts later have their own columns."""

    def step(index):
        losses = {"main": torch.tensor(float(index))}
        if index % 3 == 0:
            losses["rare"] = torch.tensor(100.0 + index)
        return losses if index < 4 else losses | {"late": torch.tensor(-1.0)}

    net = nn.Linear(1, 1)
    fit(step, {"net": net}, 6, tmp_path, log_every=2, save_every=3)
    assert rows(tmp_path) == [
        {"step": "2", "main": "1", "rare": "100", "late": ""},
        {"step": "4", "main": "3", "rare": "103", "late": ""},
        {"step": "6", "main": "5", "rare": "103", "late": "-1"},
    ]
    fit(step, {"net": net}, 8, tmp_path, log_every=2)
    assert rows(tmp_path)[-1] == {"step": "8", "main": "7", "rare": "106", "late": "-1"}


def test_callbacks(tmp_path):
    called: list[int] = []
    Run().fit(tmp_path, 11, every={5: called.append})
    assert called == [5, 10, 11]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_guard_names_step_and_loss_and_keeps_the_good_state(tmp_path, value):
    good = Run().fit(tmp_path / "good", 10)
    run = Run()
    run.poison = {12: value}
    message = rf"step 13: \{{'copy': {value}\}}. The last good state is .*state.pt; lower the learning rate"
    with pytest.raises(NonFiniteLoss, match=message):
        run.fit(tmp_path / "run", 24, log_every=7)
    saved = load_state(tmp_path / "run" / "state.pt")
    assert saved.pop("step") == 10
    assert_same(saved, parts(good))
    assert len(Run().fit(tmp_path / "run", 24).seen) == 14  # continues from step 10


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    """The last update before a save may break weights although the loss is finite; they are not saved."""
    run = Run()

    def broken(index):
        losses = run.step(index)
        if index == 19:
            run.net[3].bias.data[1] = math.inf
        return losses

    with pytest.raises(NonFiniteLoss, match=r"step 20: NaN or infinite numbers in net after the update"):
        fit(broken, run.state, 24, tmp_path, save_every=10)
    assert load_state(tmp_path / "state.pt")["step"] == 10


def test_guard_before_anything_was_saved(tmp_path):
    run = Run()
    run.poison = {2: math.nan}
    with pytest.raises(NonFiniteLoss, match="step 3: .*No state had been saved"):
        run.fit(tmp_path, 24)


def test_the_state_of_another_run(tmp_path):
    run = Run().fit(tmp_path, 4)
    with pytest.raises(ValueError, match=r"holds \['average', 'net', 'optimizer'\], this run has \['net'\]"):
        fit(run.step, {"net": run.net}, 8, tmp_path)


# Files.


@pytest.mark.lengthy
def test_a_damaged_state_falls_back_and_is_set_aside(tmp_path):
    once = Run().fit(tmp_path / "once", 30)
    Run().fit(tmp_path / "run", 20)
    path = tmp_path / "run" / "state.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match=r"damaged, now .*state.pt.damaged; continuing from .*state.pt.previous"):
        continued = Run().fit(tmp_path / "run", 30)
    assert len(continued.seen) == 20
    assert_same(parts(continued), parts(once))
    assert load_state(path)["step"] == 30
    assert load_state(path.with_name("state.pt.previous"))["step"] == 20  # not the damaged one


def test_nothing_readable(tmp_path):
    path = tmp_path / "state.pt"
    assert load_state(path) is None
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"no training state can be read: .*state.pt, damaged .*remove it to start"):
        load_state(path)
    path.rename(tmp_path / "state.pt.previous")  # as if killed between the two renames, then damaged
    with pytest.raises(ValueError, match=r"state.pt.previous"):
        load_state(path)


def test_no_objects_are_unpickled(tmp_path):
    torch.save({"step": 1, "path": tmp_path}, tmp_path / "state.pt")
    with pytest.raises(ValueError, match="no training state can be read"):
        load_state(tmp_path / "state.pt")


def test_killed_between_the_two_renamings(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    save_state(path, {"step": 1})
    rename, calls = os.replace, []

    def killed(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_state(path, {"step": 2})
    monkeypatch.undo()
    assert not path.exists()
    assert load_state(path) == {"step": 1}
    save_state(path, {"step": 3})
    assert load_state(path) == {"step": 3}


# The script reads life times in seconds. For each, a child saves one state after the other until it is killed; then
# the script prints the number of the last save that returned. One process serves all life times, because importing
# torch takes seconds.
SAVING = """
import os, signal, sys, time, torch
from pathlib import Path
from dreamportrait.training.states import save_state

print("ready", flush=True)
step = 0
for line in sys.stdin:
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        while True:
            step += 1
            save_state(Path(sys.argv[1]), {"step": step, "x": torch.full((50_000,), float(step))})
            os.write(theirs, b"%d\\n" % step)
    os.close(theirs)
    time.sleep(float(line))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with open(ours) as pipe:
        step = int(([step] + pipe.read().split())[-1])
    print(step, flush=True)
"""


@pytest.mark.lengthy
def test_killed_while_saving(tmp_path):
    """Kill the child at 25 random moments.

    The state that loads is complete, and at most one save newer than the last one reported.
    """
    path, moments = tmp_path / "state.pt", random.Random(0)
    command, pipe, done = [sys.executable, "-c", SAVING, str(path)], subprocess.PIPE, 0
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1) as process:
        assert process.stdout.readline() == "ready\n"
        for _ in range(25):
            process.stdin.write(f"{moments.uniform(0.005, 0.06)}\n")
            done = int(process.stdout.readline())
            if (state := load_state(path)) is None:
                assert done == 0
                continue
            assert state["step"] in (done, done + 1)
            assert torch.equal(state["x"], torch.full((50_000,), float(state["step"])))
        process.stdin.close()
    assert process.returncode == 0 and done > 5  # the number depends on the speed of the computer


def test_cosine():
    assert cosine(0, 1000, 2.0) == pytest.approx(0.02)  # the first of 100 warm-up steps
    assert cosine(49, 1000, 2.0, warmup=50) == pytest.approx(2 * (0.505 + 0.495 * math.cos(math.pi * 0.049)))
    assert cosine(500, 1000, 2.0) == pytest.approx(1.01)
    assert cosine(1000, 1000, 2.0) == pytest.approx(0.02)
    rates = [cosine(i, 1000, 2.0) for i in range(1000)]
    peak = rates.index(max(rates))
    assert 95 <= peak <= 100 and rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_running_average():
    net = nn.BatchNorm1d(2)
    average = Ema(net)
    with torch.no_grad():
        net.weight.fill_(3.0)
        net.running_mean.fill_(7.0)
    average.update(net, 0.75)
    assert average.module.weight.tolist() == [1.5, 1.5]  # 0.75 * 1 + 0.25 * 3
    assert average.module.running_mean.tolist() == [7.0, 7.0]
    assert not average.module.training and not average.module.weight.requires_grad
    beta = half_life(16, 1600)
    assert beta**100 == pytest.approx(0.5)
