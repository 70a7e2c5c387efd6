"""From a sentence to a styled head, with tiny networks and random weights."""

import pytest
import torch
from tiny_editing import editor
from tiny_freestyle import SIZE, cameras, styled

from dreamportrait.systems.freestyle.adapter import StyleAdapter
from dreamportrait.systems.freestyle.fewshot import FewShotSettings, build
from dreamportrait.systems.freestyle.generator import PictureTo3D
from dreamportrait.systems.freestyle.instruct import Sampling
from dreamportrait.systems.freestyle.mixing import mix
from dreamportrait.systems.freestyle.pretraining import PretrainSettings, pretrain
from dreamportrait.systems.freestyle.tuning import TuneSettings, input_fronts, tune


@pytest.mark.lengthy
@pytest.mark.parametrize("paper", [False, True])
def test_a_style_is_learnt_and_applied(tmp_path, capsys, paper):
    made = styled()
    base = PictureTo3D(
        pretrain(made, PretrainSettings(images=8, batch=4, statistics=8), tmp_path / "run"), made.generator
    )
    how = FewShotSettings(identities=1 if paper else 2, views=4, sampling=Sampling(steps=2, text_scale=3))
    data = build(base.generator, editor(), ["a gold statue"], how, tmp_path / "set")
    settings = TuneSettings(
        steps=3, views=2, train="all" if paper else "lora", rank=2, input="edited" if paper else "source"
    )
    tuned = tune(base, data, settings, tmp_path / "tuning")
    named = {"base_name": "tiny", "licence": "Apache-2.0"}
    StyleAdapter.of(tuned, base.i2t, data, how, settings, **named).save(tmp_path / "gold")
    gold = StyleAdapter.load(tmp_path / "gold")
    assert (gold.note() is not None) == paper
    fronts = input_fronts(base, data, gold.about.input)
    with torch.no_grad():
        heads = PictureTo3D(gold.applied(base.i2t), base.generator).heads(fronts)
        plain = base.heads(fronts)
    assert not torch.equal(heads.planes, plain.planes)
    assert heads.view(cameras(len(fronts))).image.shape == (len(fronts), 3, SIZE, SIZE)
    assert torch.equal(mix(base, [gold], [1], [fronts]).planes, heads.planes)
