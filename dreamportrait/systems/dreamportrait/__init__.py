"""DreamPortrait: an EG3D generator conditioned on text, trained by D-SDS and a GAN loss."""
