"""Losses that align generated pictures with prompts, by the knowledge of frozen models.

    stable_diffusion.py   a latent diffusion model as the losses see it: encode, embed, predict
    distillation.py       D-SDS, the method's own; SJC, a comparison
    clip_loss.py          the cosine of picture and prompt, a comparison
    views.py              prompts that say from where a head is seen

Nothing here knows of generators: images come in, a loss goes out.
"""
