"""Checks that a training can continue from a checkpoint, before and while it is loaded."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer


def check_file(path: Path, check: Callable[[Mapping[str, Any]], object]) -> None:
    """Call `check` with the content of a checkpoint, and name the file in its error. Tensors are mapped, not read."""
    try:
        check(torch.load(path, map_location="cpu", weights_only=True, mmap=True))
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no checkpoint of this version ({error!r}); begin a new run") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def check_fits(checkpoint: Mapping[str, Any], module: nn.Module, optimizers: Sequence[Optimizer], batch: int) -> None:
    """Raise ValueError if a checkpoint is of another training. batch: images of a step."""
    _check_weights(checkpoint["state_dict"], module)
    _check_optimizers(checkpoint["optimizer_states"], optimizers)
    if checkpoint["images"] % batch:
        raise ValueError(
            f"the checkpoint was made after {checkpoint['images']} images, which is not a multiple of "
            f"data.batch={batch}; continue with a batch size that divides it"
        )


def _check_weights(saved: Mapping[str, Any], module: nn.Module) -> None:
    own = {name: value.shape for name, value in module.state_dict().items()}
    found = {name: value.shape for name, value in saved.items()}
    wrong = [name for name in own.keys() | found.keys() if own.get(name) != found.get(name)]
    if wrong:
        name = min(wrong)
        shapes = (list(shape) if (shape := part.get(name)) is not None else "nothing" for part in (found, own))
        raise ValueError(
            "the checkpoint is of another architecture: {} entries differ, for example {} is {} there and {} "
            "here; continue with the configuration in its run's folder".format(len(wrong), name, *shapes)
        )


def _check_optimizers(saved: list[Any], optimizers: Sequence[Optimizer]) -> None:
    own = [_groups(optimizer.state_dict()) for optimizer in optimizers]
    found = [_groups(each) for each in saved]
    if own[: len(found)] != found:
        raise ValueError(
            f"the checkpoint has optimisers of {found} weights, this run has {own}: other parts are frozen; continue "
            "with the configuration in its run's folder"
        )


def _groups(state: Mapping[str, Any]) -> dict[str, int]:
    return {group["name"]: len(group["params"]) for group in state["param_groups"]}
