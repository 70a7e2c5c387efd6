"""Everything that a training imports, for the server in forks.py. Nothing may compute here: threads are not forked."""

import faulty_train  # noqa: F401
import lightning.pytorch  # noqa: F401
import torch
import wandb  # noqa: F401

import dreamportrait.mini.models  # noqa: F401
import dreamportrait.systems.dreamportrait.run  # noqa: F401

torch.set_num_threads(1)
