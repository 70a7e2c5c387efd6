"""Checks that a training can continue from a checkpoint, before and while it is loaded."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from dreamportrait.systems.dreamportrait.config import Config

FAKE_SCORE = "fake_score."  # prefix of its weights


def check_checkpoint(path: Path, module: nn.Module, optimizers: Sequence[Optimizer], config: Config) -> None:
    """Raise ValueError unless the module can continue from a checkpoint. Its tensors are mapped, not read."""
    try:
        fitted(torch.load(path, map_location="cpu", weights_only=True, mmap=True), module, optimizers, config)
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no checkpoint of this version ({error!r}); begin a new run") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def fitted(
    checkpoint: Mapping[str, Any], module: nn.Module, optimizers: Sequence[Optimizer], config: Config
) -> dict[str, Any]:
    """Return the checkpoint with what the module needs of it. Raise ValueError if it is of another training."""
    found = _adopted(checkpoint, module, config)
    _check_weights(found["state_dict"], module)
    _check_optimizers(found["optimizer_states"], optimizers)
    batch = config.data.batch
    if found["images"] % batch:
        raise ValueError(
            f"the checkpoint was made after {found['images']} images, which is not a multiple of data.batch={batch}; "
            "continue with a batch size that divides it"
        )
    return found


def _adopted(checkpoint: Mapping[str, Any], module: nn.Module, config: Config) -> dict[str, Any]:
    """Let a run with a fake score begin from a checkpoint without one, and the other way round."""
    own = {name: value for name, value in module.state_dict().items() if name.startswith(FAKE_SCORE)}
    state = dict(checkpoint["state_dict"])
    found = [name for name in state if name.startswith(FAKE_SCORE)]
    if own and not found:
        state.update(own)  # Lightning leaves the last optimiser, which has no saved state, as it is
    elif found and not own:
        for name in found:
            del state[name]
    gone = {"discriminator": config.model.freeze_discriminator, "fake_score": not own}
    optimizers = [each for each in checkpoint["optimizer_states"] if not gone.get(each["param_groups"][0]["name"])]
    return {**checkpoint, "state_dict": state, "optimizer_states": optimizers}


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
