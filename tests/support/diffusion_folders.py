"""Small Stable Diffusion folders in the layout of diffusers."""

import json
import shutil
from pathlib import Path

import torch
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from open_clip.tokenizer import SimpleTokenizer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizerFast

from dreamportrait.mini.diffusion.folder import save_unet, save_vae
from dreamportrait.mini.diffusion.unet import make_unet
from dreamportrait.mini.diffusion.vae import make_vae

WIDTH = 16
_SPECIAL = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}


def write_mini(folder: Path, width: int = WIDTH) -> Path:
    """Write a model without a text encoder; its config.json names the text model."""
    torch.manual_seed(0)
    save_vae(make_vae((2, 4, 6)), folder)
    save_unet(make_unet(width, (8, 16)), folder)
    return folder


def write_own(folder: Path) -> Path:
    """Write a model with a tokenizer, a text encoder and the scheduler of Stable Diffusion 2.0-base."""
    write_mini(folder)
    (folder / "config.json").unlink()
    shutil.rmtree(folder / "scheduler")
    PNDMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")
    write_text(folder)
    change_json(
        folder / "model_index.json",
        scheduler=["diffusers", "PNDMScheduler"],
        text_encoder=["transformers", "CLIPTextModel"],
        tokenizer=["transformers", "CLIPTokenizer"],
    )
    return folder


def write_text(folder: Path) -> None:
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        hidden_act="gelu",
    )
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    bpe = SimpleTokenizer()
    vocabulary = {_SPECIAL.get(token, token): number for token, number in bpe.encoder.items()}
    merges = [pair for pair, _ in sorted(bpe.bpe_ranks.items(), key=lambda item: item[1])]
    plain = folder / "plain"  # the layout of vocab.json and merges.txt, which every version of transformers reads
    plain.mkdir()
    (plain / "vocab.json").write_text(json.dumps(vocabulary))
    (plain / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{first} {second}\n" for first, second in merges))
    tokenizer = CLIPTokenizerFast.from_pretrained(plain, pad_token="!", model_max_length=77)
    tokenizer.save_pretrained(folder / "tokenizer")
    shutil.rmtree(plain)


def change_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
