"""The miniature world's Stable Diffusion: an AutoencoderKL and a UNet2DConditionModel in a diffusers folder.

    OUT/model_index.json             as diffusers writes it; tokenizer and text_encoder are [null, null]
    OUT/vae/ unet/ scheduler/        config.json (scheduler_config.json) and half-precision safetensors

Prompts are embedded by mini CLIP A: the words of dreamportrait.text.encoder, all of the context, without a mask, as
Stable Diffusion 2 reads them from its own text tower. Latents have mean 0 and deviation 1 in every channel, because
the statistics are folded into the VAE's own 1x1 convolutions; the scaling factor is 1.
"""
