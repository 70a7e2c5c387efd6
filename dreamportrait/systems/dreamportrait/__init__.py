"""DreamPortrait: an EG3D generator conditioned on text, trained with D-SDS and a GAN loss."""
