"""Measure a text-to-3D generator. This is the command `dreamportrait evaluate` as a script.

python eval/fid_msc_rp.py --checkpoint mini --dataset miniworld:test --out scores
torchrun --nproc_per_node=8 eval/fid_msc_rp.py --checkpoint runs/celebatext_hq --dataset data/test.zip --out scores
"""

from dreamportrait.cli.scores import evaluate

if __name__ == "__main__":
    evaluate()
