"""The miniature world's Stable Diffusion: an AutoencoderKL and a UNet2DConditionModel in a diffusers folder.

    OUT/model_index.json             as diffusers writes it; tokenizer and text_encoder are [null, null]
    OUT/vae/ unet/ scheduler/        config.json (scheduler_config.json) and half-precision safetensors

Prompts are embedded by mini CLIP A. The UNet reads the word features of dreamportrait.text.encoder over the full
context and without a mask, like Stable Diffusion 2 reads those of its own text tower. Latents have mean 0 and deviation
1 in every channel, because their statistics are folded into the VAE's own 1x1 convolutions; the scaling factor is 1.
"""
