"""Which checkpoints a run continues from: also one without a fake score, or with one that is no longer needed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from dreamportrait.systems.dreamportrait.config import Config
from dreamportrait.training.continuing import check_file, check_fits

FAKE_SCORE = "fake_score."  # prefix of its weights


def check_checkpoint(path: Path, module: nn.Module, optimizers: Sequence[Optimizer], config: Config) -> None:
    """Raise ValueError unless the module can continue from a checkpoint. Its tensors are mapped, not read."""
    check_file(path, lambda checkpoint: fitted(checkpoint, module, optimizers, config))


def fitted(
    checkpoint: Mapping[str, Any], module: nn.Module, optimizers: Sequence[Optimizer], config: Config
) -> dict[str, Any]:
    """Return the checkpoint with what the module needs of it. Raise ValueError if it is of another training."""
    found = _adopted(checkpoint, module, config)
    check_fits(found, module, optimizers, config.data.batch)
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
