"""Compare guidance through a small encoder with guidance through the VAE's, on pictures of a generator.

\b
    python eval/encoder.py --encoder weights/taesd --guidance sd-2.0-base --checkpoint runs/lab --dataset data/x:test
    python eval/encoder.py --train 400 --width 24 --out encoder      # distils a small one in the miniature world

Prints the mean cosine between the gradients of D-SDS at a picture by the two encoders, the ratio of their lengths, and
how far the latents differ. With --train, the encoder learns from pictures of the data set and is saved to --out.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from dreamportrait.core.errors import one_message


@click.command(help=__doc__)
@click.option("--checkpoint", default="mini", show_default=True, help="As for `dreamportrait evaluate`.")
@click.option("--guidance", default="mini/diffusion", show_default=True, help="As guidance.source.")
@click.option(
    "--dataset", default="miniworld:validation", show_default=True, help="Prompts, and pictures to learn from."
)
@click.option("--encoder", type=click.Path(path_type=Path), help="A folder with a small encoder.")
@click.option("--train", "steps", type=click.IntRange(min=1), help="Steps of training a small encoder instead.")
@click.option("--width", type=click.IntRange(min=1), default=24, show_default=True, help="Channels of a trained one.")
@click.option("--jacobian", type=click.FloatRange(min=0), default=1.0, show_default=True, help="0: latents alone.")
@click.option("--batch", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--pictures", type=click.IntRange(min=2), default=128, show_default=True, help="To compare on.")
@click.option("--scale", type=float, default=8.0, show_default=True, help="As guidance.scale.")
@click.option("--t-min", type=click.FloatRange(0, 1), default=0.3, show_default=True, help="As guidance.t_min.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Where a trained encoder is saved.")
def main(
    checkpoint: str,
    guidance: str,
    dataset: str,
    encoder: Path | None,
    steps: int | None,
    width: int,
    jacobian: float,
    batch: int,
    pictures: int,
    scale: float,
    t_min: float,
    seed: int,
    device: str,
    out: Path | None,
) -> None:
    with one_message():
        if (encoder is None) == (steps is None):
            raise click.UsageError("name an encoder (--encoder FOLDER), or train one (--train STEPS)")
        import torch

        from dreamportrait.core.config import Guidance
        from dreamportrait.core.files import check_free
        from dreamportrait.data.sources import open_pictures
        from dreamportrait.geometry.images import from_bytes
        from dreamportrait.guidance import small_encoder as small_encoders
        from dreamportrait.guidance.guides import DiffusionGuide
        from dreamportrait.guidance.stable_diffusion import load_stable_diffusion
        from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline

        if out is not None:
            check_free(out, False, small_encoders.FILES)
        torch.manual_seed(seed)
        prior = load_stable_diffusion(guidance, device=device)
        small: Any
        data = open_pictures(dataset, count=2000)
        if steps is not None:
            small = small_encoders.make_small_encoder(prior, width)
            torch.nn.Module.to(small, device)
            size = prior.image_size

            def batches() -> Iterator[torch.Tensor]:
                while True:
                    chosen = torch.randint(len(data), (batch,)).tolist()
                    images = from_bytes(torch.stack([data.image(i) for i in chosen]).to(device))
                    yield torch.nn.functional.interpolate(images, (size, size), mode="bilinear", antialias=True)

            with click.progressbar(length=steps, label="training") as bar:
                small_encoders.distil(small, prior, batches(), steps, jacobian, report=lambda *_: bar.update(1))
            if out is not None:
                small_encoders.save_small_encoder(small, out)
        else:
            assert encoder is not None
            small = load_stable_diffusion(guidance, device=device, encoder=encoder).vae
        small = small.eval().requires_grad_(False)
        pipe = DreamPortraitPipeline.from_pretrained(checkpoint).to(device)
        guide = DiffusionGuide(prior, Guidance(source=guidance, scale=scale, t_min=t_min))
        found = []
        for first in range(0, pictures, batch):
            numbers = range(first, min(first + batch, pictures))
            prompts = [data.evaluation_caption(i % len(data)) for i in numbers]
            made = [pipe(prompt, seed=i).colors for i, prompt in zip(numbers, prompts, strict=True)]
            camera = data.cameras[[i % len(data) for i in numbers]].to(device)
            images = torch.cat([each.reshape(-1, *each.shape[-3:]) for each in made]).to(device)
            found.append(small_encoders.agreement(guide, small, images, prompts, camera))
        weights = sum(p.numel() for p in small.encoder.parameters())
        whole = sum(p.numel() for p in prior.vae.encoder.parameters())
    click.echo(f"encoder: {weights:,} weights; the VAE's: {whole:,}")
    for name, values in zip(small_encoders.Agreement._fields, zip(*found, strict=True), strict=True):
        click.echo(f"{name}: {sum(values) / len(values):.4f}")


if __name__ == "__main__":
    main()
