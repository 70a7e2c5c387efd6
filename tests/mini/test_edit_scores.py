"""Tests of the scores of an editor of pictures, by hand and with exact results."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_editing
import torch
from PIL import Image
from random_world import random_pool
from torch import Tensor

from dreamportrait.geometry.images import as_saved, from_bytes
from dreamportrait.metrics.style_oracle import PLAIN, Reading
from dreamportrait.mini import edit_scores
from dreamportrait.mini.diffusion.folder import make_scheduler
from dreamportrait.miniworld.edits import Edit, draw_edit
from dreamportrait.miniworld.styles import Look, style
from dreamportrait.systems.freestyle.instruct import Sampling
from dreamportrait.systems.freestyle.prompts import Instruction

EDITS = [edit for i in range(30) if not (edit := draw_edit("validation", i)).blur]


def reading(edits: Sequence[Edit]) -> Reading:
    """Return what an oracle without errors reads in exact results."""
    names = [edit.look.style.name if edit.look.style else PLAIN for edit in edits]
    return Reading(names, [edit.face_after for edit in edits], torch.zeros(len(edits)), torch.zeros(len(edits)))


def test_exact_results_obey_and_keep() -> None:
    assert (edit_scores.obeyed(EDITS, reading(EDITS)) == 1).all()
    shares = edit_scores.kept(EDITS, reading(EDITS))
    assert (shares[~shares.isnan()] == 1).all()


def test_doing_nothing_keeps_and_does_not_obey() -> None:
    nothing = reading([replace(edit, changed={}, look=Look(None)) for edit in EDITS])
    told = [i for i, edit in enumerate(EDITS) if edit.look.style or edit_scores.told(edit)]
    assert (edit_scores.obeyed(EDITS, nothing)[told] == 0).all()
    assert edit_scores.kept(EDITS, nothing).nanmean() == 1


def test_shares_by_hand() -> None:
    base = next(edit for edit in EDITS if edit_scores.kind(edit) == "attribute")
    face = base.face | {"hat": "none", "eyewear": "none"}
    edit = replace(base, face=face, changed={"hat": "cap", "hat_color": "red"})
    count = len(edit.kept())
    wrong = Reading([PLAIN], [edit.face_after | {"hat_color": "blue", "eyewear": "glasses"}], *torch.zeros(2, 1))
    assert edit_scores.obeyed([edit], wrong).item() == 0  # the hat is blue
    assert edit_scores.kept([edit], wrong).item() == pytest.approx((count - 1) / count)  # the glasses are new
    styled = replace(edit, look=Look(style("gold statue")))
    assert edit_scores.told(styled) == {"hat": "cap"}  # gold hats have no other colour
    golden = wrong._replace(styles=["gold statue"])
    assert edit_scores.obeyed([styled], golden).item() == 1
    assert [edit_scores.kind(each) for each in (edit, styled, replace(styled, changed={}))] == [
        "attribute",
        "both",
        "style",
    ]


def test_the_nearest_variant_counts() -> None:
    edit = replace(EDITS[0], changed={}, look=Look(style("alien"), 2))
    exact = edit_scores.results(edit)
    assert len(exact) == 3
    assert torch.equal(exact[2], from_bytes(torch.from_numpy(edit.after().copy())))
    assert edit_scores.nearest_psnr(exact[1, None], [edit]).item() == 100  # the limit of psnr()
    before = from_bytes(torch.from_numpy(edit.before().copy()))[None]
    assert edit_scores.nearest_psnr(before, [edit]).item() < 30


def test_sharp_triples() -> None:
    pool = random_pool(60)
    rows = edit_scores.sharp(pool, 40)
    assert len(rows) == 40 and not any(pool.edits[i].blur for i in rows) and rows[-1] > 40


def test_each_picture_has_its_own_instruction() -> None:
    editor, images = tiny_editing.editor(), torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    noise, sampling = editor.fixed_noise(0), Sampling(steps=2)
    texts = [Instruction("a", "bad"), Instruction("b", "bad")]
    both = editor.edit_each(images, texts, noise, sampling).images
    for i in range(2):
        alone = editor.edit(images[i, None], texts[i], noise, sampling).images
        torch.testing.assert_close(both[i, None], alone, atol=1e-4, rtol=0)  # sums are in another order
    with pytest.raises(ValueError, match="3 instructions for 2 pictures"):
        editor.edit_each(images, [*texts, texts[0]], noise, sampling)
    made = edit_scores.edited(editor, images, EDITS[:2], sampling, batch=1)
    assert made.shape == images.shape and made.abs().max() <= 1


def test_sdedit_with_the_true_noise_is_a_reconstruction() -> None:
    """DDIM returns to the picture from any step if the UNet knows the noise that was added."""
    noise = torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(0))
    unet: Any = lambda z, t, words: SimpleNamespace(sample=noise.expand_as(z))  # noqa: E731
    vae, scheduler = tiny_editing.diffusion().vae, make_scheduler()
    before = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    decoded = as_saved(vae.decode(vae.encode(before).latent_dist.mode()).sample)
    for strength in (0.3, 0.9):
        made = edit_scores.sdedit((unet, vae, scheduler), tiny_editing.embed, before, ["a", "b"], strength)
        # Rounding of latents, and one step of a byte.
        torch.testing.assert_close(made, decoded, atol=1.01 / 127.5, rtol=0)
    assert edit_scores.style_prompt(replace(EDITS[0], look=Look(style("elf")))) == "an elf"


def test_settings_are_chosen_by_similarity() -> None:
    class Scorer:
        def image_features(self, images: Tensor) -> Tensor:
            return torch.nn.functional.normalize(images.flatten(1), dim=1)

    exact = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    candidates = [Sampling(text_scale=scale) for scale in (1.0, 2.0, 3.0)]
    best, found = edit_scores.choose(
        candidates,
        lambda each: exact if each.text_scale == 2 else -exact,
        exact,
        Scorer(),  # type: ignore[arg-type]
    )
    assert best.text_scale == 2 and np.allclose(found, [-1, 1, -1])


def test_a_sheet_has_a_row_for_each_edit() -> None:
    picture = edit_scores.sheet(*(torch.zeros(2, 3, 64, 64),) * 2, EDITS[:2], torch.ones(2, 3, 64, 64))
    assert isinstance(picture, Image.Image) and picture.height == 2 * 128
