"""Where the sampling of an edit starts, and the steps that remain: eq. 1 of the paper.

An edit that starts at pure noise differs from view to view. Starting at the noisy picture itself pins colours and
places: at step 899 of Stable Diffusion's schedule, the amplitude of the picture is still 0.12.

    here          paper
    latents       E(I), encoded by the VAE and scaled for the UNet
    noise         n, the same for all views of an identity
    start         tau
    alphas        abar_t at every step t, [T]
"""

from typing import Literal

from torch import Tensor

from eg3d_ops._checks import check_int, check_number

Rule = Literal["drop", "squeeze"]
RULES = ("drop", "squeeze")


def start_step(start: float, count: int) -> int:
    """Return s = round(tau T) - 1, the step of a schedule of `count` steps. -1 = no noise at all."""
    if not 0 <= check_number("start", start) <= 1:
        raise ValueError(f"start={start}: must be within 0 .. 1, the share of the noise schedule to start at")
    return round(start * count) - 1


# Eq. 1: n* = Add(E(I), n, tau) = sqrt(abar_s) E(I) + sqrt(1 - abar_s) n.
def add(latents: Tensor, noise: Tensor, alphas: Tensor, step: int) -> Tensor:  # [N, c, h, w] x 2, [T] -> [N, c, h, w]
    """Return latents with the noise of a step of the schedule. Step -1 adds none."""
    if step < 0:
        return latents
    signal = alphas[step]
    return signal.sqrt() * latents + (1 - signal).sqrt() * noise


def all_steps(count: int, steps: int) -> list[int]:
    """Return `steps` steps of a schedule of `count`, from its last one, with the spacing that diffusers calls trailing.

    20 of 1000 steps are 999, 949, ... 49.
    """
    if not 1 <= check_int("steps", steps, 1) <= count:
        raise ValueError(f"steps={steps}: must be from 1 to {count}, the steps of the noise schedule")
    return [round(count - i * count / steps) - 1 for i in range(steps)]


def remaining_steps(count: int, steps: int, start: float, rule: Rule) -> list[int]:
    """Return the steps of an edit that starts at `start`. The first one is the step whose noise is to be added.

    drop: leave out the steps above s. 18 of 20 remain with start 0.9: 899, 849, ... 49.
    squeeze: place all steps from s down. With start 0.9 they are 899, 854, ... 44.
    """
    if rule not in RULES:
        raise ValueError(f"steps_after_start={rule!r}: must be one of {', '.join(RULES)}")
    s = start_step(start, count)
    if rule == "drop":
        found = [step for step in all_steps(count, steps) if step <= s]
    else:
        found = all_steps(s + 1, steps) if s + 1 >= steps else []
    if not found:
        raise ValueError(f"start={start} leaves no step of {steps} to sample; choose a larger start or more steps")
    return found
