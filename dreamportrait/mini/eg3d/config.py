"""Sizes of the miniature generator and discriminator."""

from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.discriminator import DiscriminatorConfig
from dreamportrait.eg3d.superresolution import SuperResolutionSpec
from dreamportrait.miniworld.attributes import Z_DIM

GENERATOR = GeneratorConfig(
    z_dim=Z_DIM,
    w_dim=128,
    mapping_layers=4,
    mapping_width=384,  # attributes are an argmax over the code's numbers, which narrow layers cannot compute exactly
    plane_axes="xy_yz_zx",
    plane_resolution=64,
    plane_channels=16,
    channel_base=2048,
    channel_max=128,
    decoder_hidden=32,
    decoder_lr_multiplier=2.0,
    render_resolution=64,
    num_coarse=12,
    num_fine=12,
    ray_start=2.25,
    ray_end=3.15,
    box_warp=0.8,  # views are 0.63 across at the centre; the background needs room at the sides
    superresolution=SuperResolutionSpec(64, (16, 16), (1, 1), own_filter=False),
    raw_includes_first_block=False,
    sr_low_precision=False,
    camera_pivot=(0.0, 0.0, 0.0),
)
DISCRIMINATOR = DiscriminatorConfig(
    image_resolution=64, channel_base=1024, channel_max=96, mapping_layers=2, conv_clamp=None, num_low_precision=0
)
