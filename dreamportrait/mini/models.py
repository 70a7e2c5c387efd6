"""Loading of the shipped models by name. Each package provides the loaders of its own models."""

from typing import Any, NamedTuple

from dreamportrait.eg3d.discriminator import DualDiscriminator
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.weights.registry import locate


class TriPlaneGan(NamedTuple):
    """Both networks of a tri-plane GAN."""

    generator: TriPlaneGenerator
    discriminator: DualDiscriminator


def from_pretrained(name: str) -> Any:
    """Load the shipped model `name` in eval mode on the CPU. It returns, by name:

    mini/clip-a, clip-b, clip-s, clip-t      open_clip's model and tokenizer
    mini/diffusion, mini/diffusion-styles    UNet, VAE and noise schedule of diffusers
    mini/eg3d                                TriPlaneGan(generator, discriminator)
    mini/head                                HeadModel
    mini/i2t-any, i2t-base                   ImageToTriplane
    mini/ip2p                                InstructPix2Pix
    mini/oracle                              AttributeReader
    mini/splats                              SplatHead
    mini/style-oracle                        StyleReader
    """
    folder = locate(name)
    if name.startswith("mini/clip-"):
        from dreamportrait.text import compact_clip

        return compact_clip.load(folder), compact_clip.tokenizer()
    if name in ("mini/diffusion", "mini/diffusion-styles"):
        from dreamportrait.mini.diffusion.folder import load_diffusion

        return load_diffusion(folder)
    if name == "mini/eg3d":
        from dreamportrait.eg3d.folder import load_discriminator, load_generator

        return TriPlaneGan(load_generator(folder), load_discriminator(folder))
    if name == "mini/head":
        from dreamportrait.systems.heads.folder import read_head_model

        return read_head_model(folder)
    if name == "mini/oracle":
        from dreamportrait.metrics.world_oracle import load

        return load(folder)
    if name == "mini/splats":
        from dreamportrait.export.splat_head import load_splat_head

        return load_splat_head(folder)
    if name in ("mini/i2t-any", "mini/i2t-base"):
        from dreamportrait.systems.freestyle.folder import load_network_of

        return load_network_of(folder)
    if name == "mini/ip2p":
        from dreamportrait.systems.freestyle.instruct import load_instruct_pix2pix

        return load_instruct_pix2pix(name)
    if name == "mini/style-oracle":
        from dreamportrait.metrics import style_oracle

        return style_oracle.load(folder)
    raise AssertionError(f"{name} has no loader")
