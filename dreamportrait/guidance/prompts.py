"""Text features for the UNet of a diffusion model: the full context without a mask, as the UNet was trained."""

import logging
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from dreamportrait.text.encoder import TextEncoder
from dreamportrait.text.loading import load_text_encoder
from dreamportrait.weights.diffusion import Layout, LayoutError

_log = logging.getLogger(__name__)

Embed = Callable[[list[str]], Tensor]  # prompts -> words [N, L, C], L fixed


class OwnWords:
    """Text features from the tokenizer and text encoder in the diffusion model's own folder.

    They are taken after the final normalisation. Stable Diffusion 2 stores its text tower without the last layer, so
    they are features of the penultimate layer of the original tower.
    """

    def __init__(self, tokenizer: Any, encoder: Any) -> None:  # CLIPTokenizer and CLIPTextModel of transformers
        self.tokenizer, self.encoder = tokenizer, encoder
        self.length: int = encoder.config.max_position_embeddings

    @torch.no_grad()
    def __call__(self, prompts: list[str]) -> Tensor:
        tokens = self.tokenise(prompts).to(self.encoder.device)
        words: Tensor = self.encoder(tokens).last_hidden_state
        return words.float()  # [N, L, C]

    def tokenise(self, prompts: list[str]) -> Tensor:  # [N, L]
        """Turn prompts into tokens. Prompts that are too long are cut at the end, with a warning in the log."""
        if not isinstance(prompts, list) or not prompts:
            raise ValueError(f"prompts={prompts!r}: give a list of at least one text")
        whole = self.tokenizer(prompts, truncation=False, padding=False).input_ids
        for prompt, ids in zip(prompts, whole, strict=True):
            if len(ids) > self.length:
                cut = f"a prompt of {len(ids) - 2} tokens is cut to its first {self.length - 2}"
                _log.warning("%s: %.60r", cut, prompt)
        tokens: Tensor = self.tokenizer(
            prompts, truncation=True, padding="max_length", max_length=self.length, return_tensors="pt"
        ).input_ids
        return tokens


def make_embed(layout: Layout, text: TextEncoder | None, dtype: torch.dtype, device: torch.device) -> Embed:
    """Return the function that turns prompts into words.

    text: the text encoder that the folder names, if the caller has already loaded it.
    """
    if layout.words is None:
        if text is not None:
            raise ValueError(f"{layout.folder} has its own text encoder; leave out `text`")
        return _own(layout, dtype, device)
    if text is None:
        text = load_text_encoder(layout.words, offline=True, device=device)
    return _words_of(text)


def _words_of(text: TextEncoder) -> Embed:
    return lambda prompts: text.encode(prompts, shorten=False).words


def _own(layout: Layout, dtype: torch.dtype, device: torch.device) -> Embed:
    from transformers import CLIPTextModel, CLIPTokenizer

    folder, kind = layout.folder, cast(Any, CLIPTextModel)
    encoder, info = kind.from_pretrained(
        folder,
        subfolder="text_encoder",
        variant=layout.variants["text_encoder"],
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
    )
    check_loaded(info, f"{folder}/text_encoder")
    tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer", local_files_only=True)
    return OwnWords(tokenizer, encoder.to(device, dtype).eval().requires_grad_(False))


def check_loaded(info: dict[str, Any], where: str) -> None:
    """Raise LayoutError if weights are missing or do not fit.

    The libraries would fill them with random numbers and only log it.
    """
    if wrong := [f"{kind}: {sorted(map(str, info[kind]))[:6]}" for kind in info if info[kind]]:
        raise LayoutError(f"{where} does not hold the weights of its configuration; {'; '.join(wrong)}; fetch it again")
