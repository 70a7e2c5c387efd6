"""Tests of the clock for single kernels, with stand-ins for a GPU whose launches take longer than its kernels."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from dreamportrait.core import timing

LAUNCH, KERNEL = 1e-4, 1e-5  # seconds


class Device:
    """A GPU and its host, whose times advance only when something is put into the queue."""

    def __init__(self, launch: float) -> None:
        self.launch, self.now, self.idle_until = launch, 0.0, 0.0
        self.calls = 0
        self.cuda = SimpleNamespace(Event=lambda enable_timing: Event(self), _sleep=self.sleep, synchronize=self.finish)

    def put(self, seconds: float) -> None:
        self.now += self.launch
        self.idle_until = max(self.idle_until, self.now) + seconds

    def run(self) -> None:
        self.calls += 1
        self.put(KERNEL)

    def sleep(self, cycles: int) -> None:
        self.idle_until = max(self.idle_until, self.now) + cycles / timing._CYCLES_PER_SECOND

    def finish(self) -> None:
        self.now = max(self.now, self.idle_until)


class Event:
    def __init__(self, device: Device) -> None:
        self.device, self.time = device, 0.0

    def record(self) -> None:
        self.time = max(self.device.idle_until, self.device.now)

    def synchronize(self) -> None:
        self.device.finish()

    def elapsed_time(self, later: "Event") -> float:  # milliseconds
        return 1000 * (later.time - self.time)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Device]:
    def make(launch: float) -> Device:
        made = Device(launch)
        monkeypatch.setattr(torch, "cuda", made.cuda)
        monkeypatch.setattr(timing.time, "perf_counter", lambda: made.now)
        return made

    return make


def test_launches_are_not_part_of_a_kernels_time(device: Callable[[float], Device]) -> None:
    made = device(LAUNCH)
    assert timing.seconds(made.run, "cuda") == pytest.approx(LAUNCH + KERNEL)
    assert timing.kernel_seconds(made.run, "cuda") == pytest.approx(KERNEL)
    assert made.calls == 2 + 182  # 20 ms of 110 microseconds


def test_long_kernels_are_measured_once(device: Callable[[float], Device]) -> None:
    made = device(0.05)
    assert timing.kernel_seconds(made.run, "cuda") == pytest.approx(0.05 + KERNEL)
    assert made.calls == 1


def test_a_processor_has_no_launches(device: Callable[[float], Device]) -> None:
    made = device(LAUNCH)
    assert timing.kernel_seconds(made.run, "cpu") == pytest.approx(LAUNCH)
    assert made.calls == 1
