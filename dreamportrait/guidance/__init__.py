"""Losses that align generated pictures with prompts, computed by frozen models.

    stable_diffusion.py   a latent diffusion model with three functions: encode, embed, predict
    distillation.py       D-SDS, the loss of the paper, and SJC for comparison
    differences.py        CSD, ASD, DMD: gradients that compare two predictions
    fake_score.py         the denoiser of generated latents that DMD trains
    guides.py             one interface for the guidance losses of a training run
    views.py              prompts that name the side a head is seen from

The package does not depend on generators: its input is pictures, its output is a loss.
"""
