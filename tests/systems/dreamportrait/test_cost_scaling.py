"""Tests of the model of scaling, by hand-worked numbers."""

import pytest

from dreamportrait.systems.dreamportrait.cost.scaling import Compute, Link, Machine, Step, fit_compute, fit_link


def test_a_ring() -> None:
    link = Link(rate=100.0, latency=0.5)
    assert link.all_reduce(400, 2) == 2 * (0.5 + 2.0)  # two rounds of half the bytes
    assert link.all_reduce(400, 4) == 6 * (0.5 + 1.0)  # six rounds of a quarter
    assert link.all_reduce(400, 1) == 0  # nobody to exchange with


def test_fits_find_what_made_the_times() -> None:
    compute = Compute(fixed=0.2, picture=0.05)
    found = fit_compute({n: compute.seconds(n) for n in (4, 8, 32)})
    assert (found.fixed, found.picture) == pytest.approx((0.2, 0.05))  # of a line, but for round-off
    link = Link(rate=2e9, latency=1e-4)
    back = fit_link({size: link.all_reduce(size, 2) for size in (1000, 10**6, 10**8)}, 2)
    assert (back.rate, back.latency) == pytest.approx((2e9, 1e-4))


def test_a_step_by_hand() -> None:
    machine = Machine(Compute(1.0, 0.5), Link(100.0, 0.0), (100, 300), checkpoint=10.0, checkpoint_every=80)
    assert machine.step(8, 1) == Step(8, compute=5.0, exchange=0.0, checkpoint=1.0)
    two = machine.step(8, 2)
    assert two == Step(8, compute=3.0, exchange=4.0, checkpoint=1.0)  # 2 rounds of 50, 2 of 150
    assert two.seconds == 8.0 and two.pace == 1.0
    assert machine.step(8, 2, contention=2.0).compute == 6.0


def test_reading_counts_only_if_it_is_slower() -> None:
    def reading(pictures_per_second: float) -> float:
        return Machine(Compute(0.0, 0.5), Link(1.0, 0.0), (), pictures_per_second).step(8, 2).reading

    assert reading(2.0) == 0  # 4 pictures in 2 s, as long as the step
    assert reading(1.0) == 2.0
