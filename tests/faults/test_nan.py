"""A loss of one process becomes NaN: each loss of the training step in turn, in the same run.

The run must stop before the update is made. The cause, here a value that is multiplied by NaN once, is gone when the
same command is given again.
"""

import time
from pathlib import Path

import pytest
import torch
from clusters import assert_same_weights, fault, final
from diffusion_folders import write_own
from forks import ended, start_ranks
from toy_run import arguments

from dreamportrait.training.checkpoints import newest_checkpoint

pytestmark = pytest.mark.faults
LOSSES = ("generator", "guidance", "keep", "density", "fake_score", "discriminator", "mismatch", "r1")
# All losses in every step. The fake score is that of guidance.kind=dmd.
TRAINING = (
    *("stages=[{name: only, images: 24, guidance: true}]", "samples.prompts=[]", "trainer.save_every_images=8"),
    *("guidance.kind=dmd", "fake.warmup_images=0", "fake.updates=1", "loss.keep_weight=0.1"),
    *("loss.text_aware_discriminator=true", "loss.r1_every=1", "loss.density_every=1"),
)


def test_nan_in_each_loss(sources: Path, record, tmp_path: Path) -> None:
    training = (*TRAINING, f"guidance.source={write_own(tmp_path / 'diffusion')}")
    codes, text = ended(start_ranks(2, arguments(sources, tmp_path / "whole", *training), tmp_path / "whole-out"))
    assert codes == [0, 0], text
    given, begun = arguments(sources, tmp_path / "runs", *training), time.monotonic()
    for number, loss in enumerate(LOSSES):
        rank, output = number % 2, tmp_path / loss
        ranks = start_ranks(2, given, output, FAULT=fault("nan", output / "once", rank, loss=loss))
        codes, text = ended(ranks)
        assert codes == [1, 1] and (output / "once").exists(), text
        said = ranks[rank].text()
        assert f"step 4 (stage only, 12 images): {loss} is nan" in said, said
        assert "The update was not applied" in said and "continue from the last checkpoint" in said
        newest = newest_checkpoint(tmp_path / "runs/test/checkpoints")
        assert newest is not None and newest.name == "images-000000008.ckpt"
        assert all(x.isfinite().all() for x in final(tmp_path / "runs", 8)["state_dict"].values() if torch.is_tensor(x))
    seconds = (time.monotonic() - begun) / len(LOSSES)
    codes, text = ended(start_ranks(2, given, tmp_path / "again"))
    assert codes == [0, 0], text
    assert_same_weights(final(tmp_path / "runs"), final(tmp_path / "whole"))
    record(f"NaN in a loss, each of {len(LOSSES)}", seconds=seconds, lost_images=4)
